// Light or dark as the person chose last, set before anything is drawn. A file of its own: inline scripts are not allowed.
try {
  const chosen = localStorage.getItem("mohole.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // No storage: the system's choice holds.
}
