// How Svelte compiles: runes everywhere, so that what is state can be read off the declaration.
export default { compilerOptions: { runes: true } };
