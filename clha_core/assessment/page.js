(function () {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const items = data.items;
  const lastRater = "clha-rater-" + data.export;
  const buttons = Array.from(document.querySelectorAll("[data-vote]"));

  let rater = "";
  let state = empty();
  let place = 0;
  let undoable = []; // [item, vote before], the last one last

  function empty() {
    return { votes: {}, comments: {}, saved: true };
  }

  // Votes are kept per set and rater, so several sets and raters can share a browser.
  function storageKey() {
    return "clha-votes-" + data.export + "-" + rater;
  }

  function load() {
    try {
      return Object.assign(empty(), JSON.parse(localStorage.getItem(storageKey())));
    } catch {
      return empty();
    }
  }

  function keep() {
    try {
      localStorage.setItem(storageKey(), JSON.stringify(state));
      localStorage.setItem(lastRater, rater);
    } catch {
      byId("lost").hidden = false;
    }
  }

  function firstOpen(from) {
    for (let step = 0; step < items.length; step++) {
      const candidate = (from + step) % items.length;
      if (!state.votes[items[candidate].item]) return candidate;
    }
    return -1;
  }

  function fill(id, text) {
    byId(id).textContent = text || "(no text)";
    byId(id).classList.toggle("empty", !text);
  }

  function show() {
    const item = items[place];
    const criterion = data.criteria[item.criterion];
    byId("question").textContent = place + 1 + ". " + criterion.question;
    byId("criterion").textContent = criterion.text;
    fill("prompt", item.prompt);
    fill("a", item.a);
    fill("b", item.b);
    byId("comment").value = state.comments[item.item] || "";
    byId("prompt").scrollTop = byId("prompt").scrollHeight; // the last turn is what was answered
    showProgress();
  }

  function showProgress() {
    const vote = state.votes[items[place].item];
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.vote === vote)));
    const done = items.filter((item) => state.votes[item.item]).length;
    byId("who").textContent = rater;
    byId("count").textContent = done + " of " + items.length + (state.saved ? "" : ", unsaved");
    byId("progress").value = done;
    byId("done").hidden = done < items.length;
    byId("open").disabled = done === items.length;
    byId("previous").disabled = place === 0;
    byId("next").disabled = place === items.length - 1;
    byId("undo").disabled = undoable.length === 0;
  }

  function go(to) {
    if (to < 0 || to >= items.length) return;
    place = to;
    show();
    scrollTo(0, 0);
    byId("question").focus({ preventScroll: true });
  }

  function change(item, vote) {
    if (vote) state.votes[item] = vote;
    else delete state.votes[item];
    state.saved = false;
    keep();
  }

  function cast(vote) {
    const item = items[place].item;
    undoable.push([item, state.votes[item]]);
    change(item, vote);
    const next = firstOpen(place);
    go(next === -1 ? place : next);
  }

  function undo() {
    if (!undoable.length) return;
    const [item, before] = undoable.pop();
    change(item, before);
    go(items.findIndex((candidate) => candidate.item === item));
  }

  function save() {
    const votes = items
      .filter((item) => state.votes[item.item] || state.comments[item.item])
      .map(({ item }) => ({ item, vote: state.votes[item] || null, comment: state.comments[item] || "" }));
    const content = { format: data.format, export: data.export, rater, votes };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1) + "\n"], { type: "application/json" }));
    link.download = "votes-" + rater.replace(/[^\p{L}\p{N}]+/gu, "-") + ".json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    state.saved = true;
    keep();
    showProgress();
  }

  function askName() {
    byId("work").hidden = true;
    byId("start").hidden = false;
    byId("name").value = "";
    byId("name").focus();
  }

  function begin(name) {
    rater = name;
    state = load();
    undoable = [];
    keep();
    byId("start").hidden = true;
    byId("work").hidden = false;
    go(Math.max(firstOpen(0), 0));
  }

  byId("enter").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = byId("name").value.trim().replace(/\s+/g, " ");
    if (name) begin(name);
  });
  buttons.forEach((button) => button.addEventListener("click", () => cast(button.dataset.vote)));
  byId("previous").addEventListener("click", () => go(place - 1));
  byId("next").addEventListener("click", () => go(place + 1));
  byId("open").addEventListener("click", () => go(firstOpen(place)));
  byId("undo").addEventListener("click", undo);
  byId("save").addEventListener("click", save);
  byId("who").addEventListener("click", askName);
  byId("comment").addEventListener("input", (event) => {
    state.comments[items[place].item] = event.target.value.trim();
    state.saved = false;
    keep();
    showProgress();
  });

  const keys = {
    arrowleft: () => go(place - 1),
    arrowright: () => go(place + 1),
    0: () => cast(data.skip),
    u: undo,
    n: () => go(firstOpen(place)),
    c: () => byId("comment").focus(),
  };
  data.votes.forEach((vote, index) => (keys[index + 1] = () => cast(vote)));

  document.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    if (byId("work").hidden) return;
    if ((event.ctrlKey || event.metaKey) && key === "s") {
      event.preventDefault();
      save();
    } else if (event.target.matches("input, textarea")) {
      if (key === "escape") byId("question").focus();
    } else if (!event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat && Object.hasOwn(keys, key)) {
      event.preventDefault();
      keys[key]();
    }
  });

  // The same page in another tab: what was voted there counts here, too.
  addEventListener("storage", (event) => {
    if (event.key !== storageKey() || !rater) return;
    state = load();
    undoable = [];
    showProgress();
  });

  let before = null;
  try {
    before = localStorage.getItem(lastRater);
  } catch {
    // no storage: the warning comes with the first vote
  }
  if (before) begin(before);
  else askName();
})();
