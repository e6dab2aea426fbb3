// Keeps a page alive: frames from the hub replace what they changed, a lost link is said, hidden tabs are silent.
"use strict";
(() => {
  const path = document.body.dataset.frames;
  const banner = document.getElementById("link");
  const LOST_AFTER = 12000; // two refreshes and a breath
  let source = null;
  let watchdog = 0;

  function lost(isLost) {
    banner.hidden = !isLost;
    banner.textContent = isLost ? banner.dataset.lost : "";
    document.body.classList.toggle("lost", isLost);
    // Nothing that sounds is ever queued: without a link there is nothing to press.
    for (const button of document.querySelectorAll("#compose button[type=submit]")) button.disabled = isLost;
  }

  function heard() {
    lost(false);
    clearTimeout(watchdog);
    watchdog = setTimeout(() => lost(true), LOST_AFTER);
  }

  function show(event) {
    heard();
    const frame = document.createElement("template");
    frame.innerHTML = event.data;
    for (const part of [...frame.content.children]) {
      const old = part.id && document.getElementById(part.id);
      if (!old) continue;
      Idiomorph.morph(old, part, { ignoreActiveValue: true });
      htmx.process(document.getElementById(part.id));
    }
  }

  function open() {
    if (!path || source) return;
    source = new EventSource(path);
    source.onmessage = show;
    source.onopen = heard;
    source.onerror = () => {
      lost(true);
      if (source && source.readyState === EventSource.CLOSED) {
        close();
        setTimeout(() => document.hidden || again(), 3000);
      }
    };
  }

  // The hub answered, and not with a stream: perhaps it is starting, perhaps this page is no longer ours to watch.
  async function again() {
    const page = await fetch(location.href, { redirect: "manual" }).catch(() => null);
    if (page && page.type !== "opaqueredirect" && page.status < 400) open();
    else if (page && page.status < 500) location.reload();
    else setTimeout(() => document.hidden || again(), 3000);
  }

  // A browser gives one host six connections; a hidden tab must not hold one.
  function close() {
    clearTimeout(watchdog);
    if (source) source.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  addEventListener("pagehide", close);
  addEventListener("offline", () => lost(true));
  document.addEventListener("htmx:sendError", () => lost(true));
  document.addEventListener("htmx:responseError", (event) => {
    const problem = event.detail.xhr.responseText;
    let words = problem;
    try { words = JSON.parse(problem).detail; } catch { /* not a problem document: shown as it is */ }
    banner.hidden = false;
    banner.textContent = words;
  });

  // What a reader has opened stays open when its section is renewed.
  const opened = new Set();
  document.addEventListener("toggle", (event) => {
    if (event.target.id) opened[event.target.open ? "add" : "delete"](event.target.id);
  }, true);
  document.addEventListener("htmx:afterSwap", () => {
    for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  });

  const wanted = new URLSearchParams(location.search).get("speaker");
  if (wanted) {
    const box = document.querySelector(`input[name=speakers][value="${CSS.escape(wanted)}"]`);
    if (box) box.checked = true;
  }
  open();
})();
