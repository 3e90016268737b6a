// Draws every figure in the colours of the page, and again when those change.
const isDark = matchMedia("(prefers-color-scheme: dark)");
const draw = () =>
  document.querySelectorAll(".figure").forEach((place) => {
    const figures = JSON.parse(place.previousElementSibling.textContent);
    const { data, layout } = isDark.matches ? figures.dark : figures.light;
    Plotly.react(place, data, layout, { displayModeBar: false, responsive: true });
  });
isDark.addEventListener("change", draw);
draw();
