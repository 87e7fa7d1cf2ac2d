(function () {
  const byId = (id) => document.getElementById(id);
  const holder = byId("cards");
  const cards = Array.from(holder.children);
  const texts = cards.map((card) => card.textContent.toLowerCase());

  function filter() {
    const needle = byId("search").value.trim().toLowerCase();
    const subset = byId("subset").value;
    const outcome = byId("outcome").value;
    let shown = 0;
    cards.forEach((card, i) => {
      const fits = (!subset || card.dataset.subset === subset)
        && (!outcome || card.dataset.outcome === outcome)
        && (!needle || texts[i].includes(needle));
      card.hidden = !fits;
      shown += fits;
    });
    byId("shown").textContent = shown + " of " + cards.length;
  }

  function sort() {
    const order = byId("order").value;
    const key = {
      place: (card) => Number(card.dataset.place),
      gain: (card) => -Number(card.dataset.gain),
      loss: (card) => Number(card.dataset.gain),
    }[order];
    cards.slice().sort((a, b) => key(a) - key(b)).forEach((card) => holder.append(card));
  }

  byId("search").addEventListener("input", filter);
  byId("subset").addEventListener("change", filter);
  byId("outcome").addEventListener("change", filter);
  byId("order").addEventListener("change", sort);
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  filter();
  sort();
})();
