// What the theme's own markup lacks for keyboards and screen readers; it adds parts while the page is read.
function mend() {
  document.querySelectorAll("nav.md-code__nav:not([role])").forEach((part) => part.setAttribute("role", "presentation"));
  document.querySelectorAll(".highlight code, .md-typeset__scrollwrap").forEach((part) => {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  });
}
new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
addEventListener("resize", mend);
mend();
