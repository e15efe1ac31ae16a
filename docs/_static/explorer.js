// The interactive page: a method, a moment of training, and the relative lag up to then.
(() => {
  const get = (name) => document.getElementById("explorer-" + name);
  const { methods, scale, points } = EXPLORER;
  const decoded = new Map();
  let chosen = 0, timer = null;

  function coordinates(method) {
    if (!decoded.has(method)) {
      decoded.set(method, method.xy.map((text) => {
        const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        return Array.from(new Int16Array(bytes.buffer), (v) => v / scale);
      }));
    }
    return decoded.get(method);
  }

  const font = { size: 13 };
  const margin = { l: 55, r: 15, t: 15, b: 45 };
  const quiet = { displayModeBar: false, responsive: true };
  const reach = 2.6;
  const line = (x1, y1) => ({ type: "line", x0: -x1 * 9, y0: -y1 * 9, x1: x1 * 9, y1: y1 * 9,
    line: { color: "#999", width: 1 }, layer: "below" });

  function draw() {
    const method = methods[chosen], step = Number(get("step").value);
    const [x, y] = coordinates(method).map((all) => all.slice(step * points, (step + 1) * points));
    get("at").value = method.at[step].toLocaleString("en");
    Plotly.react(get("space"), [{ x, y, mode: "markers", type: "scatter", hoverinfo: "skip",
      marker: { color: method.colour, size: 6, opacity: 0.55 } }], {
      font, margin, height: 420, shapes: [line(1, 1), line(1, 0), line(0, 1)],
      xaxis: { range: [-reach, reach], title: { text: "mean of p(z|x) under the model" }, zeroline: false },
      yaxis: { range: [-reach, reach], title: { text: "mean of q(z|x)" }, scaleanchor: "x", zeroline: false },
    }, quiet);
    Plotly.react(get("lag"), [
      { x: method.at, y: method.lag, mode: "lines", line: { color: method.colour, width: 2 }, name: "relative lag" },
      { x: [method.at[step]], y: [method.lag[step]], mode: "markers", marker: { color: method.colour, size: 11 } },
    ], {
      font, margin, height: 200, showlegend: false,
      xaxis: { title: { text: "decoder updates" }, rangemode: "tozero" },
      yaxis: { range: [-0.05, 1.3], title: { text: "relative lag" } },
    }, quiet);
    const lag = method.lag[step];
    get("says").textContent = lag === null
      ? "The model's means do not spread yet: there is nothing to follow."
      : "Relative lag " + lag.toFixed(2) + ": the network " + (lag < 0.2 ? "follows the model." :
        lag > 0.95 ? "does not follow the model." : "follows in part.");
  }

  function choose(index) {
    const before = methods[chosen].at[Number(get("step").value)] || 0;
    chosen = index;
    const at = methods[index].at;
    get("step").max = at.length - 1;
    get("step").value = Math.max(0, at.filter((update) => update <= before).length - 1);
    draw();
  }

  function move(by) {
    get("step").value = Number(get("step").value) + by;
    draw();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    get("play").textContent = "play";
  }

  function play() {
    if (timer) return stop();
    if (get("step").value === get("step").max) get("step").value = 0;
    get("play").textContent = "pause";
    timer = setInterval(() => (get("step").value === get("step").max ? stop() : move(1)), 180);
  }

  methods.forEach((method, index) => get("method").add(new Option(method.label, index)));
  get("method").addEventListener("change", (event) => choose(Number(event.target.value)));
  get("step").addEventListener("input", draw);
  get("back").addEventListener("click", () => move(-1));
  get("next").addEventListener("click", () => move(1));
  get("play").addEventListener("click", play);
  choose(0);
})();
