// What a node shows of its run: lines of text, and curves of loss and phi, or of how much the estimate was changed. One
// widget made of HTML, the same in the classic canvas and in Nodes 2.0. It exists only while there is something to show,
// and no workflow keeps it.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

const EVENT = "motionprompt.view" // nodes/host/status.py
const WIDGET = "motionprompt_view"
const COLOURS = { loss: "#d9962e", phi: "#4c9be8", change: "#5fae6b" }
const PLOT = 90 // least height of the curves in pixels
const [MARGIN, PADDING, LINE] = [6, 8, 15]
const FONT = "11px sans-serif"
const KEPT = "MotionPrompt.views" // of this tab, so that reloading the page loses nothing
const MOST = 40
const PATIENCE = 300 // milliseconds in which an interface puts a new widget in place

const STYLE = `
.motionprompt-view { display: flex; flex-direction: column; width: 100%; height: 100%; overflow: hidden; }
.motionprompt-view > div { box-sizing: border-box; display: flex; flex-direction: column; padding: 4px ${PADDING}px;
  border-radius: 6px; background: var(--comfy-input-bg, #222); color: var(--input-text, #ddd);
  font: ${FONT}; line-height: ${LINE}px; }
.motionprompt-view > div:has(figure) { flex: 1; } /* the curves grow with the node */
.motionprompt-view figure { display: flex; flex-direction: column; flex: 1 0 ${PLOT}px; margin: 0; }
.motionprompt-view figcaption { display: flex; gap: 12px; white-space: nowrap; overflow: hidden; }
.motionprompt-view svg { flex: 1 0 ${PLOT - LINE - 10}px; height: 0; min-height: 0; margin: 4px 3px 6px;
  overflow: visible; }
.motionprompt-view p { margin: 0; white-space: pre-line; overflow-wrap: anywhere; }
/* the node under it is dragged, selected and zoomed as if it were drawn there */
:has(> .motionprompt-view) { pointer-events: none !important; }
`

// "<workflow>/<node>" -> { node, workflow, lines, curves }, the oldest first
const views = new Map(kept())

function kept() {
  try {
    return JSON.parse(sessionStorage.getItem(KEPT) ?? "[]").filter(([, view]) => Array.isArray(view.lines) && view.curves)
  } catch {
    return [] // another page of this address wrote something else there
  }
}

const ruler = document.createElement("canvas").getContext("2d")
ruler.font = FONT

function keep(view) {
  const key = `${view.workflow}/${view.node}`
  views.delete(key)
  views.set(key, view)
  if (views.size > MOST) views.delete(views.keys().next().value)
  try {
    sessionStorage.setItem(KEPT, JSON.stringify([...views]))
  } catch {
    sessionStorage.removeItem(KEPT) // full: what the page shows now does not depend on it
  }
}

// "1:2:7" is node 7 in the subgraph of node 2 in the subgraph of node 1: all three of them, as far as they exist.
function find(graph, path) {
  const found = []
  for (const id of String(path).split(":")) {
    found.push(graph?.getNodeById(id))
    graph = found.at(-1)?.subgraph
  }
  return found.every(Boolean) ? found : []
}

function svg(kind, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", kind)
  const shared = { fill: "none", "vector-effect": "non-scaling-stroke", "stroke-linecap": "round" }
  for (const [name, value] of Object.entries({ ...shared, ...attributes })) element.setAttribute(name, value)
  return element
}

// A path in a square of 100, the lowest value at its bottom; a gap where a value is missing, a dot at the end.
function curve(values, colour) {
  const known = values.filter(Number.isFinite)
  const low = Math.min(...known)
  const span = Math.max(...known) - low || 1
  const points = values.map((value, index) => {
    const x = values.length > 1 ? (100 * index) / (values.length - 1) : 50
    return Number.isFinite(value) && `${x.toFixed(2)} ${(100 - (100 * (value - low)) / span).toFixed(2)}`
  })
  const path = points.map((point, at) => point && `${at && points[at - 1] ? "L" : "M"}${point}`).filter(Boolean)
  const dot = `M${points.findLast(Boolean)}h0.001`
  return [
    svg("path", { d: path.join(""), stroke: colour, "stroke-width": 1.75, "stroke-linejoin": "round" }),
    svg("path", { d: dot, stroke: colour, "stroke-width": 5 }),
  ]
}

// A faint line where a new sampling step begins.
function stepLines(steps) {
  const starts = steps.flatMap((step, at) => (at && step !== steps[at - 1] ? [at] : []))
  const at = (index) => ((100 * (index - 0.5)) / (steps.length - 1)).toFixed(2)
  return starts.map((index) => svg("path", { d: `M${at(index)} 0V100`, stroke: "currentColor", opacity: 0.15 }))
}

const plotted = (curves) => Object.keys(COLOURS).filter((name) => curves[name]?.some(Number.isFinite))

function figure(curves) {
  const drawn = plotted(curves)
  if (!drawn.length) return []
  const element = document.createElement("figure")
  const caption = document.createElement("figcaption")
  const plot = svg("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none" })
  plot.append(...stepLines(curves.step ?? []), ...drawn.flatMap((name) => curve(curves[name], COLOURS[name])))
  for (const name of drawn) {
    const label = document.createElement("span")
    const known = curves[name].filter(Number.isFinite)
    label.style.color = COLOURS[name]
    label.textContent = `${name} ${known.at(-1).toPrecision(3)}`
    caption.append(label)
  }
  element.append(caption, plot)
  return [element]
}

function content(view) {
  const text = document.createElement("p")
  text.textContent = view.lines.join("\n") // may hold names of files: text, never HTML
  const card = document.createElement("div")
  card.append(...figure(view.curves), text)
  return card
}

function widgetOf(node) {
  return node.widgets?.find((widget) => widget.name === WIDGET)
}

// Told from the texts alone: the classic canvas asks before the element has its width.
function leastHeight(node) {
  const view = node.motionPromptView
  const room = node.size[0] - 2 * (MARGIN + PADDING)
  const rows = view.lines.map((line) => Math.max(1, Math.ceil((1.1 * ruler.measureText(line).width) / room)))
  const text = rows.reduce((sum, count) => sum + count) * LINE + 8
  return text + (plotted(view.curves).length ? PLOT : 0) + 2 * MARGIN
}

// Saved without it, a node is as high as it was before.
function saveWithoutIt(node) {
  const before = node.size[1]
  const { onSerialize } = node
  node.onSerialize = function (saved, ...rest) {
    onSerialize?.call(this, saved, ...rest)
    if (!widgetOf(this)) return
    const without = Math.max(before, saved.size[1] - leastHeight(this))
    saved.size = [saved.size[0], Math.min(saved.size[1], without)]
    const outside = saved.properties?.proxyWidgets // what a subgraph's node shows of those inside, and of its own
    if (outside) saved.properties.proxyWidgets = outside.filter(([, name]) => name !== WIDGET)
  }
}

function addWidget(node) {
  saveWithoutIt(node)
  const element = document.createElement("div")
  element.className = "motionprompt-view"
  const widget = node.addDOMWidget(WIDGET, "motionprompt", element, {
    serialize: false, // not sent to the server
    hideOnZoom: false,
    hideInPanel: true,
    margin: MARGIN,
    getMinHeight: () => leastHeight(node),
    getMaxHeight: () => (plotted(node.motionPromptView.curves).length ? undefined : leastHeight(node)),
  })
  widget.serialize = false // not saved
  return widget
}

// The Nodes 2.0 of interface 1.32 shows no widget that comes after another one of the node was edited.
function mountIfForgotten(node, element) {
  const rows = element.isConnected || document.querySelector(`.lg-node[data-node-id="${CSS.escape(node.id)}"] .lg-node-widgets`)
  if (!rows?.append) return
  const row = document.createElement("div")
  row.append(element)
  rows.append(row)
}

function show(node, view) {
  node.motionPromptView = view
  const { element } = widgetOf(node) ?? addWidget(node)
  element.replaceChildren(content(view))
  setTimeout(mountIfForgotten, PATIENCE, node, element)
  node.graph?.setDirtyCanvas(true, true)
}

const opened = () => app.rootGraph ?? app.graph

function showIfOpen(view) {
  const graph = opened()
  if (view.workflow && view.workflow !== graph?.id) return // another workflow has come to the front
  for (const node of find(graph, view.node)) show(node, view) // who looks from outside sees how it goes as well
}

app.registerExtension({
  name: "MotionPrompt.NodeView",
  setup() {
    const style = document.createElement("style")
    style.textContent = STYLE
    document.head.append(style)
    api.addEventListener(EVENT, ({ detail }) => {
      keep(detail)
      showIfOpen(detail)
    })
  },
  afterConfigureGraph() {
    for (const view of views.values()) if (view.workflow === opened()?.id) showIfOpen(view)
  },
})
