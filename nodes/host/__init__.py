"""The only place that touches ComfyUI's internals; node files ask here."""
