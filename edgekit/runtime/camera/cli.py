"""The board's command line: ``python3 -m edgekit.runtime.camera.cli ARTIFACT --source csi://0`` (Python 3.6).

``add_arguments`` is the one definition of the options' names; the workstation's verb has the same ones.
"""

import argparse
import contextlib
import json
import sys

from ..errors import EdgeKitError
from .options import Options, parse_size
from .signals import held, leave

EPILOG = """examples:
  camera model --source csi://0 --web
  camera model --source /dev/video1 --web --bind 0.0.0.0
  camera model --source rtsp://user:password@192.168.1.9/stream --headless --jsonl seen.jsonl
  camera model --source street.mp4 --offline --mp4 boxes.mp4 --coco boxes.json
"""


class _Once(argparse.Action):
    """An option that may be given once: of two sources the first would be passed over without a word."""

    def __call__(self, parser, namespace, value, option_string=None):
        if getattr(namespace, self.dest) is not None:
            parser.error("{} is given twice; one run looks at one source".format(option_string))
        setattr(namespace, self.dest, value)


def parser(program="camera"):
    """The parser of the board's verb."""
    found = argparse.ArgumentParser(
        program,
        description="Run a detector on a camera: newest frame first, honest latency.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("artifact", metavar="ARTIFACT", help="folder of the exported network")
    add_source_arguments(found)
    add_sink_arguments(found)
    found.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    return found


def add_source_arguments(found):
    """What is looked at, and with what."""
    add = found.add_argument
    add(
        "--source",
        action=_Once,
        required=True,
        help="0, /dev/videoN, csi://0, rtsp://, http://, video, folder, GStreamer string",
    )
    add("--size", type=parse_size, metavar="WxH", help="asked of the camera, for example 1280x720")
    add("--fps", type=float, help="asked of the camera; of a file: instead of its own rate")
    add(
        "--flip",
        type=int,
        default=0,
        metavar="N",
        help="csi: nvvidconv's flip-method, 2 turns by 180 degrees",
    )
    add(
        "--timeout",
        type=float,
        default=10.0,
        metavar="SECONDS",
        help="without a picture for so long a source is opened anew",
    )
    add("--offline", action="store_true", help="a file as fast as possible, every frame; else it plays in real time")
    add("--loop", action="store_true", help="a file again and again")
    add("--runtime", help="onnxruntime, tensorrt8, ...; without it an engine's own, else the board's first that fits")
    add("--threads", type=int, help="compute threads; without it all cores but one")
    add("--score", type=float, default=0.3, help="boxes below it are neither drawn nor recorded")
    add("--no-track", dest="track", action="store_false", help="no track numbers")
    add("--count-line", dest="count_lines", action="append", default=[], metavar="X1,Y1,X2,Y2",
        help="count what crosses it; pixels, or fractions 0..1; may be given several times")  # fmt: skip
    add("--zone", dest="zones", metavar="FILE", help="JSON file of polygons to count in")


def add_sink_arguments(found):
    """Where it goes."""
    add = found.add_argument
    add("--web", nargs="?", type=int, const=-1, metavar="PORT", help="serve the page on 127.0.0.1")
    add("--bind", metavar="ADDRESS", help="serve the page on this address, with a random token; 0.0.0.0 for all")
    add("--window", action="store_true", help="show a window")
    add("--mp4", metavar="FILE", help="annotated video")
    add("--jsonl", metavar="FILE", help="one JSON object a line")
    add("--coco", metavar="FILE", help="COCO JSON, written whole when the run ends")
    add("--headless", action="store_true", help="only the numbers, in the log")
    add("--view-fps", type=float, metavar="N",
        help="most pictures a second for page, window and recording; else all, on one busy core 15")  # fmt: skip
    add("--seconds", type=float, help="end after so long")
    add("--frames", type=int, help="end after so many results")


def options_of(values):
    """Options from parsed arguments."""
    values = dict(values)
    port = values.pop("web", None)
    values.pop("json", None)
    return Options(web=port is not None, port=port if port is not None and port >= 0 else None, **values)


def main(argv=None):
    """Run. Returns the exit code: 0; 2 for a mistake that the user can mend or a lost sink; 130 when interrupted."""
    try:
        values = vars(parser().parse_args(argv))
        options = options_of(values)
        with held():
            from . import app
        summary = app.run(options, say)
    except EdgeKitError as error:
        say("edgekit: {}".format(error))
        return 2
    except KeyboardInterrupt:
        say("edgekit: interrupted")
        return 130
    for line in app.closing_lines(summary):
        say(line)
    if values["json"]:
        sys.stdout.write(json.dumps(summary, indent=1) + "\n")
        sys.stdout.flush()
    return app.exit_code(summary, options.offline)


def say(line):
    """A line for people, on stderr. Without a terminal any more, the run still ends as it should."""
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


if __name__ == "__main__":
    leave(main())
