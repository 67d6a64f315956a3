// A number that is left to the preset says so, in place of the number below its range that means it (nodes/options.py).
// Without this it only looks odd: what runs does not depend on it.
import { app } from "../../scripts/app.js"

const NODES = ["MotionPromptKSampler", "MotionPromptApply", "MotionPromptSettings"]

app.registerExtension({
  name: "MotionPrompt.Presets",
  nodeCreated(node) {
    if (!NODES.includes(node.comfyClass)) return
    const widgets = node.widgets ?? []
    for (const widget of widgets.slice(widgets.findIndex((widget) => widget.name === "preset") + 1)) {
      const shown = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(widget), "_displayValue")?.get
      if (widget.type !== "number" || !shown) continue // a slider always counts
      Object.defineProperty(widget, "_displayValue", {
        configurable: true,
        get() {
          return this.value <= this.options.min ? "preset" : shown.call(this)
        },
      })
    }
  },
})
