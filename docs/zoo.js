// The page of the zoo: filters, sorts and copies in its table, and names in its pictures. No library, no network. Without
// this file, the page is a plain table, and the pictures show names as the browser does.
const zoo = document.querySelector(".zoo");
const table = zoo?.querySelector("table");
if (table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const column = Object.fromEntries(heads.map((head, index) => [head.textContent.trim(), index]));
  const number = (text) => (text === "-" ? NaN : Number(text.replaceAll(",", "")));
  const rows = [...body.rows].map((row) => {
    const texts = [...row.cells].map((cell) => cell.textContent.trim());
    const weights = texts[column["Weights"]].split(/\s*[(),;:]\s*/).filter((part) => part && !/^-$|^\d+ of \d+$/.test(part));
    return { row, texts, name: texts[0], all: texts.join(" ").toLowerCase(), weights };
  });
  const unique = (values) => [...new Set(values)].sort((a, b) => a.localeCompare(b, "en"));
  const make = (tag, properties, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // Filters.
  const labelled = (words, control) => make("label", {}, make("span", { textContent: words }), control);
  const options = (words, values) => {
    const select = make("select", {}, new Option(words, ""));
    for (const [value, text] of values) select.add(new Option(text, value));
    return select;
  };
  const same = (values) => values.map((value) => [value, value]);
  const search = make("input", { type: "search", placeholder: "resnet, 2019, apache" });
  const family = options("all", same(unique(rows.map(({ texts }) => texts[column["Family"]]))));
  const dimensions = options("any", [["1", "1: signals"], ["2", "2: images"], ["3", "3: volumes"]]);
  const zoos = ["torchvision", "timm"];
  const licences = unique(rows.flatMap(({ weights }) => weights)).filter((name) => !zoos.includes(name));
  const weights = options("any or none", [["*", "published"], ...zoos.map((name) => [name, `of ${name}`])]);
  weights.append(make("optgroup", { label: "some of them" }, ...licences.map((name) => new Option(name, name))));
  const bounds = ["Parameters, M", "MACs, M", "Top-1, %"].map((name) => {
    const ends = ["from", "to"].map((end) =>
      make("input", { type: "number", min: 0, step: "any", inputMode: "decimal", placeholder: end, ariaLabel: `${name}, ${end}` }),
    );
    return { index: column[name], ends, field: make("fieldset", {}, make("legend", { textContent: name }), ...ends) };
  });
  const count = make("output", {});
  const reset = make("button", { type: "reset", textContent: "Reset" });
  const form = make(
    "form",
    { className: "zoo-controls", ariaLabel: "Filter the table" },
    labelled("Search", search),
    labelled("Family", family),
    labelled("Dimensions", dimensions),
    labelled("Weights", weights),
    ...bounds.map(({ field }) => field),
    make("p", {}, count, reset),
  );
  const fits = ({ texts, all, weights: own }, words) =>
    words.every((word) => all.includes(word)) &&
    (family.value === "" || texts[column["Family"]] === family.value) &&
    (dimensions.value === "" || texts[column["Dimensions"]].includes(dimensions.value)) &&
    (weights.value === "" || (weights.value === "*" ? own.length > 0 : own.includes(weights.value))) &&
    bounds.every(({ index, ends: [from, to] }) => {
      if (from.value === "" && to.value === "") return true;
      const value = number(texts[index]);
      return value >= (from.value === "" ? -Infinity : from.valueAsNumber) && value <= (to.value === "" ? Infinity : to.valueAsNumber);
    });
  const points = new Map(rows.map(({ name }) => [name, []]));
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const each of rows) {
      const hidden = !fits(each, words);
      shown += !hidden;
      if (each.row.hidden === hidden) continue;
      each.row.hidden = hidden;
      for (const point of points.get(each.name)) point.classList.toggle("out", hidden);
    }
    count.value = `${shown} of ${rows.length} models`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("reset", () => setTimeout(filter));
  form.addEventListener("submit", (event) => event.preventDefault());

  // A button in each row that copies the line of code; its place is kept if the clipboard cannot be written to.
  const status = make("p", { className: "zoo-status", role: "status" });
  const line = (name) => `lazytorch.models.get_model("${name}", num_classes=10)`;
  for (const { row, name } of rows) {
    const button = make("button", { type: "button", className: "zoo-copy", textContent: "Copy", title: line(name) });
    button.ariaLabel = `Copy ${line(name)}`;
    button.dataset.name = name;
    row.cells[0].append(" ", button);
  }
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Pages that are opened as files may not write to the clipboard otherwise.
      const area = make("textarea", { value: text, readOnly: true });
      document.body.append(area);
      area.select();
      const copied = document.execCommand("copy");
      area.remove();
      if (!copied) return false;
    }
    return true;
  };
  let last;
  body.addEventListener("click", async (event) => {
    const button = event.target.closest(".zoo-copy");
    if (!button) return;
    const code = line(button.dataset.name);
    const copied = await copy(code);
    button.focus({ preventScroll: true });
    status.textContent = copied ? `Copied: ${code}` : code;
    button.textContent = copied ? "Copied" : "Copy";
    clearTimeout(last);
    last = setTimeout(() => {
      status.textContent = "";
      for (const each of body.querySelectorAll(".zoo-copy")) each.textContent = "Copy";
    }, 4000);
  });

  // Sorting. What is not stated comes last in both directions.
  heads.forEach((head, index) => {
    const numeric = rows.every(({ texts }) => texts[index] === "-" || !Number.isNaN(number(texts[index])));
    const button = make("button", { type: "button" }, ...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const direction = head.ariaSort === "ascending" ? -1 : 1;
      for (const other of heads) other.ariaSort = null;
      head.ariaSort = direction === 1 ? "ascending" : "descending";
      const compare = (a, b) => {
        if ((a === "-") !== (b === "-")) return a === "-" ? 1 : -1;
        return direction * (numeric ? number(a) - number(b) || 0 : a.localeCompare(b, "en", { numeric: true }));
      };
      rows.sort((a, b) => compare(a.texts[index], b.texts[index]));
      body.append(...rows.map(({ row }) => row));
    });
  });
  zoo.prepend(form);
  zoo.append(status);

  // Columns keep their widths if rows are hidden, which also makes filtering fast.
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const widths = heads.map((head) => head.getBoundingClientRect().width / rem);
  heads.forEach((head, index) => (head.style.width = `${widths[index]}rem`));
  table.style.width = `${widths.reduce((sum, width) => sum + width)}rem`;
  Object.assign(table.style, { display: "table", tableLayout: "fixed", maxWidth: "none" });

  // Pictures: the model nearest to the pointer, or the one that the arrow keys reach, is named; a click goes to its row.
  const byName = new Map(rows.map((each) => [each.name, each]));
  const go = (name) => {
    const { row } = byName.get(name);
    row.scrollIntoView({ block: "center" });
    row.querySelector("a").focus({ preventScroll: true });
  };
  for (const svg of document.querySelectorAll(".zoo-charts svg")) {
    const figure = svg.closest("figure");
    const tip = make("div", { className: "zoo-tip", role: "status", hidden: true });
    figure.append(tip);
    const circles = [...svg.querySelectorAll("circle[data-name]")].map((circle) => {
      points.get(circle.dataset.name)?.push(circle);
      const title = circle.querySelector("title");
      title.remove(); // the browser would show it as well
      return { circle, title: title.textContent, x: circle.cx.baseVal.value, y: circle.cy.baseVal.value };
    });
    circles.sort((a, b) => a.x - b.x);
    svg.tabIndex = 0;
    svg.setAttribute("aria-label", `${svg.getAttribute("aria-label")}. Arrow keys name the models, Enter goes to the table.`);
    let chosen = null;
    const choose = (next) => {
      chosen?.circle.classList.remove("chosen");
      chosen = next;
      tip.hidden = !chosen;
      svg.style.cursor = chosen ? "pointer" : "";
      if (!chosen) return;
      chosen.circle.classList.add("chosen");
      const [name, facts] = chosen.title.split(": ");
      tip.replaceChildren(make("strong", { textContent: name }), ...facts.split(", ").map((text) => make("span", { textContent: text })));
      const box = chosen.circle.getBoundingClientRect();
      const frame = figure.getBoundingClientRect();
      const x = box.left + box.width / 2 - frame.left;
      tip.style.left = `${Math.max(0, Math.min(x - tip.offsetWidth / 2, frame.width - tip.offsetWidth))}px`;
      const above = box.top - frame.top - tip.offsetHeight - 8;
      tip.style.top = `${above > 0 ? above : box.bottom - frame.top + 8}px`;
    };
    const nearest = (event) => {
      const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let best = null;
      let least = 24; // in units of the picture
      for (const each of circles) {
        const distance = Math.hypot(each.x - at.x, each.y - at.y);
        if (distance < least && !each.circle.classList.contains("out")) [best, least] = [each, distance];
      }
      return best;
    };
    const point = (event) => {
      const best = nearest(event);
      if (best !== chosen) choose(best);
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && choose(null));
    svg.addEventListener("blur", () => choose(null));
    svg.addEventListener("click", () => chosen && matchMedia("(hover: hover)").matches && go(chosen.circle.dataset.name));
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      if (step) {
        const shown = circles.filter(({ circle }) => !circle.classList.contains("out"));
        const place = shown.indexOf(chosen);
        choose(shown.at(place === -1 ? (step === 1 ? 0 : -1) : (place + step) % shown.length) ?? null);
      } else if (event.key === "Enter" && chosen) go(chosen.circle.dataset.name);
      else if (event.key === "Escape") choose(null);
      else return;
      event.preventDefault();
    });
  }
  filter();
}
