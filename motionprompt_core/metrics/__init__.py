"""What a video's motion is like in numbers."""

from .measure import MeasuredVideo, TemporalMetrics, evaluate_video, measure_stream, measure_video

__all__ = ["MeasuredVideo", "TemporalMetrics", "evaluate_video", "measure_stream", "measure_video"]
