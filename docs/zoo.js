// Sorts and filters the table of the zoo, in the page, without any library.
const zoo = document.querySelector(".zoo table");
if (zoo) {
  const body = zoo.tBodies[0];
  const rows = [...body.rows];
  const text = (row, column) => row.cells[column].textContent.trim();
  const number = (value) => (value === "-" ? Infinity : Number(value.replaceAll(",", "")));

  const controls = document.createElement("p");
  controls.className = "zoo-controls";
  controls.innerHTML =
    '<input type="search" placeholder="Filter: resnet, 2019, timm ..." aria-label="Filter the table">' +
    '<select aria-label="Family"><option value="">All families</option></select><output></output>';
  const [search, family, count] = controls.children;
  for (const name of new Set(rows.map((row) => text(row, 1)))) family.add(new Option(name, name));
  zoo.closest(".zoo").prepend(controls);

  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const all = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => all.includes(word)) || (family.value !== "" && text(row, 1) !== family.value);
      shown += !row.hidden;
    }
    count.value = `${shown} of ${rows.length}`;
  };
  search.addEventListener("input", filter);
  family.addEventListener("change", filter);
  filter();

  [...zoo.tHead.rows[0].cells].forEach((head, column) => {
    const numeric = rows.every((row) => !Number.isNaN(number(text(row, column))));
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const direction = head.ariaSort === "ascending" ? -1 : 1;
      for (const other of zoo.tHead.rows[0].cells) other.ariaSort = null;
      head.ariaSort = direction === 1 ? "ascending" : "descending";
      const compare = numeric
        ? (a, b) => number(text(a, column)) - number(text(b, column))
        : (a, b) => text(a, column).localeCompare(text(b, column), "en", { numeric: true });
      body.append(...rows.sort((a, b) => direction * compare(a, b)));
    });
  });
}
