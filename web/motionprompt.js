// Draws the loss curve on the node while it samples, and the report's lines; everything works without that, it only
// listens.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

const NODES = ["MotionPromptKSampler", "MotionPromptApply"]
const REPORT = "MotionPromptReport"
const EVENT = "motionprompt.iteration"
const COLOURS = { loss: "#e0b050", phi: "#70b0f0" }
const ROW = 20 // height of a socket's row

// The free place on the node: right of the inputs' names, under the outputs.
function place(node) {
  const sockets = (node.inputs ?? []).filter((input) => !input.widget).length
  const outputs = (node.outputs ?? []).length
  const left = 120
  const top = outputs * ROW + 8
  return { left, top, width: node.size[0] - left - 12, height: sockets * ROW - top }
}

function line(ctx, values, box, colour) {
  const known = values.filter((value) => typeof value === "number")
  if (known.length < 2) return
  const low = Math.min(...known)
  const span = Math.max(...known) - low || 1
  ctx.strokeStyle = colour
  ctx.beginPath()
  values.forEach((value, index) => {
    if (typeof value !== "number") return
    const x = box.left + (index / (values.length - 1)) * box.width
    const y = box.top + (1 - (value - low) / span) * box.height
    index === 0 ? ctx.moveTo(x, y) : ctx.lineTo(x, y)
  })
  ctx.stroke()
}

function draw(ctx, node) {
  const points = node.motionPromptPoints
  const box = place(node)
  if (!points?.length || node.flags?.collapsed || box.height < 24 || box.width < 60) return
  ctx.save()
  ctx.fillStyle = "rgba(0, 0, 0, 0.35)"
  ctx.fillRect(box.left - 4, box.top - 4, box.width + 8, box.height + 8)
  ctx.lineWidth = 1.5
  for (const name of ["loss", "phi"]) line(ctx, points.map((point) => point[name]), box, COLOURS[name])
  ctx.font = "10px sans-serif"
  const last = points[points.length - 1]
  const labels = ["loss", "phi"].filter((name) => typeof last[name] === "number")
  labels.forEach((name, index) => {
    ctx.fillStyle = COLOURS[name]
    ctx.fillText(`${name} ${last[name].toFixed(3)}`, box.left, box.top + 10 + 12 * index)
  })
  ctx.restore()
}

// The report's lines between its sockets, where the interface does not keep them under the node when a run has ended.
function write(ctx, node) {
  if (!node.motionPromptLines || node.flags?.collapsed || node.size[0] < 420) return
  if (node.widgets?.some((widget) => widget.name === "$$node-text-preview")) return
  ctx.save()
  ctx.font = "12px sans-serif"
  ctx.fillStyle = "#ddd"
  node.motionPromptLines.forEach((text, index) => ctx.fillText(text, 90, 18 + ROW * index, node.size[0] - 180))
  ctx.restore()
}

function keepLines(node) {
  const { onExecuted, onDrawForeground } = node
  node.onExecuted = function (output, ...rest) {
    onExecuted?.call(this, output, ...rest)
    this.motionPromptLines = output?.brief?.[0]?.split("\n")
  }
  node.onDrawForeground = function (ctx, ...rest) {
    onDrawForeground?.call(this, ctx, ...rest)
    write(ctx, this)
  }
}

app.registerExtension({
  name: "MotionPrompt.LossCurve",
  setup() {
    api.addEventListener(EVENT, ({ detail }) => {
      const node = app.graph?.getNodeById(Number(detail.node))
      if (!node) return // another workflow is open, or the node is inside a subgraph
      if (detail.first || !node.motionPromptPoints) node.motionPromptPoints = []
      node.motionPromptPoints.push(detail)
      app.graph.setDirtyCanvas(true, false)
    })
  },
  nodeCreated(node) {
    if (node.comfyClass === REPORT) keepLines(node)
    if (!NODES.includes(node.comfyClass)) return
    const before = node.onDrawForeground
    node.onDrawForeground = function (ctx, ...rest) {
      before?.call(this, ctx, ...rest)
      draw(ctx, this)
    }
  },
})
