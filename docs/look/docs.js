// Names for what the theme leaves without one: its search, and the bar beside each block of code.
document.querySelector("[data-md-component=search]")?.setAttribute("aria-label", "Search");
new MutationObserver(name).observe(document.body, { childList: true, subtree: true });
function name() {
  document.querySelectorAll("nav.md-code__nav:not([aria-label])").forEach((bar, number) =>
    bar.setAttribute("aria-label", `Code ${number + 1}`));
}
name();
