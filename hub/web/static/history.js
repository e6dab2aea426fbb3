// Draws the history of one metric. Gaps stay gaps: where nothing was measured, nothing is drawn.
"use strict";
(() => {
  const section = document.getElementById("history");
  if (!section) return;
  const { device, lang } = section.dataset;
  const form = section.querySelector("form");
  const place = section.querySelector(".chart");
  const status = section.querySelector(".status");
  const table = section.querySelector("table");
  const number = new Intl.NumberFormat(lang, { maximumFractionDigits: 3 });
  const moment = new Intl.DateTimeFormat(lang, { day: "2-digit", month: "2-digit", hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: "Asia/Ho_Chi_Minh" });
  const clock = new Intl.DateTimeFormat(lang, { hour: "2-digit", minute: "2-digit", hourCycle: "h23", timeZone: "Asia/Ho_Chi_Minh" });
  const day = new Intl.DateTimeFormat(lang, { day: "2-digit", month: "2-digit", timeZone: "Asia/Ho_Chi_Minh" });
  const units = {
    Cel: "°C", "uS/cm": "µS/cm", "ug/m3": "µg/m³", "{NTU}": "NTU", "{px}": "px", "{client}": "", "{radio}": "",
    "[pH]": "", 1: "",
  };
  let chart = null;
  let asked = 0;

  async function load() {
    const mine = ++asked;
    const hours = Number(form.elements.hours.value);
    const metric = form.elements.metric.value;
    const to = Date.now();
    const slow = setTimeout(() => { if (mine === asked) status.textContent = section.dataset.loading; }, 300);
    try {
      const query = new URLSearchParams({ metric, from: to - hours * 3600000, to, buckets: 240 });
      const response = await fetch(`/api/devices/${device}/history?${query}`);
      const told = await response.json();
      if (!response.ok) throw new Error(told.detail);
      if (mine === asked) draw(told, hours);
    } catch (error) {
      if (mine === asked) status.textContent = `${section.dataset.failed} (${error.message})`;
    } finally {
      clearTimeout(slow);
    }
  }

  function draw(told, hours) {
    const unit = told.unit in units ? units[told.unit] : told.unit;
    const label = form.elements.metric.selectedOptions[0].textContent;
    const empty = told.mean.every((value) => value === null);
    status.textContent = empty ? section.dataset.empty : "";
    if (chart) chart.destroy();
    chart = null;
    place.replaceChildren();
    const style = getComputedStyle(document.documentElement);
    const line = style.getPropertyValue("--accent").trim();
    const text = style.getPropertyValue("--text").trim();
    const grid = style.getPropertyValue("--line").trim();
    const seconds = told.at.map((at) => at / 1000);
    const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid }, font: "14px 'Be Vietnam Pro'" };
    if (!empty) {
      chart = new uPlot(
        {
          width: place.clientWidth,
          height: 260,
          legend: { show: false },
          cursor: { show: false },
          scales: { x: { min: told.start / 1000, max: told.end / 1000 } },
          axes: [
            { ...axis, values: (_, ticks) => ticks.map((tick) => (hours > 24 ? day : clock).format(tick * 1000)), space: 60 },
            { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => number.format(tick)), label: unit ? `${label}, ${unit}` : label, labelFont: axis.font, labelSize: 24 },
          ],
          bands: [{ series: [2, 1], fill: `${line}33` }],
          series: [
            {},
            { stroke: "transparent", points: { show: false }, spanGaps: false },
            { stroke: "transparent", points: { show: false }, spanGaps: false },
            { stroke: line, width: 2, points: { size: 4 }, spanGaps: false },
          ],
        },
        [seconds, told.minimum, told.maximum, told.mean],
        place,
      );
    }
    rows(told, unit);
  }

  function rows(told, unit) {
    const head = document.createElement("thead");
    const names = [section.dataset.from, section.dataset.mean, section.dataset.low, section.dataset.high];
    head.append(row("th", names.map((name, place) => (place && unit ? `${name}, ${unit}` : name))));
    const body = document.createElement("tbody");
    told.at.forEach((at, place) => {
      if (told.mean[place] === null) return;
      const values = [told.mean[place], told.minimum[place], told.maximum[place]];
      body.append(row("td", [moment.format(at), ...values.map((value) => (value === null ? "–" : number.format(value)))]));
    });
    table.replaceChildren(head, body);
  }

  function row(kind, cells) {
    const line = document.createElement("tr");
    cells.forEach((text, place) => {
      const cell = document.createElement(kind);
      cell.textContent = text;
      if (place) cell.className = "number";
      line.append(cell);
    });
    return line;
  }

  form.addEventListener("change", load);
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("resize", () => chart && chart.setSize({ width: place.clientWidth, height: 260 }));
  setInterval(() => document.hidden || load(), 30000);
  load();
})();
