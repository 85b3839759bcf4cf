// Where the app is built to and, while it is being written, which server answers /api.
import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [svelte()],
  base: "./", // it is served from any path, and by any static host
  build: {
    outDir: "../src/mohole/serve/static",
    emptyOutDir: true,
    assetsInlineLimit: 0, // a data: address is not 'self' to the Content-Security-Policy
    target: "es2022",
    reportCompressedSize: true,
  },
  server: { proxy: { "/api": process.env["MOHOLE_API"] ?? "http://127.0.0.1:8765" } },
  test: { include: ["src/**/*.test.ts"] },
});
