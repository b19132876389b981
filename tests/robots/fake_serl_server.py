"""HIL-SERL's robot server as its clients see it, a process of its own: an arm of arithmetic, and faults on demand.

All routes are POST, as there. /_fault, /_journal and /_arm are the test's own.
"""

import argparse
import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOME = [0.5, 0.0, 0.3, 1.0, 0.0, 0.0, 0.0]
FOLLOW = 0.7
"""Share of the way to the equilibrium the arm makes from one pose or state request to the next."""


class Arm:
    """Pose x, y, z and quaternion xyzw; an equilibrium it is drawn to; a gripper that takes its time."""

    def __init__(self, gripper, order, gripper_s):
        self.gripper_type, self.order, self.gripper_s = gripper, order, gripper_s
        self.pose, self.equilibrium = list(HOME), list(HOME)
        self.reflex, self.gripper, self.moved = False, 1.0, 0.0
        self.params, self.jump = {}, [0.0, 0.0, 0.0]
        self.lock = threading.Lock()

    def advance(self):
        with self.lock:
            if self.reflex:
                self.moved = 0.0
                return
            start = list(self.pose)
            mixed = [p + FOLLOW * (e - p) for p, e in zip(self.pose, self.equilibrium, strict=True)]
            length = math.sqrt(sum(q * q for q in mixed[3:]))
            self.pose = mixed[:3] + [q / length for q in mixed[3:]]
            self.moved = math.dist(start[:3], self.pose[:3])

    def wire_pose(self):
        shown = [p + j for p, j in zip(self.pose[:3], self.jump, strict=True)]
        quaternion = self.pose[3:]
        if self.order == "wxyz":
            quaternion = [quaternion[3], *quaternion[:3]]
        return [*shown, *quaternion]

    def euler(self):
        x, y, z, w = self.pose[3:]
        roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
        pitch = math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x))))
        yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        return [*self.pose[:3], roll, pitch, yaw]

    def state(self):
        if self.gripper_type == "none":
            # As there: the variable is never assigned without a gripper.
            raise UnboundLocalError("gripper_pos")
        return {
            "pose": self.wire_pose(),
            "vel": [self.moved, 0, 0, 0, 0, 0],
            "force": [0.0] * 3,
            "torque": [0.0] * 3,
            "q": [0.0] * 7,
            "dq": [0.0] * 7,
            "jacobian": [[0.0] * 7] * 6,
            "gripper_pos": self.gripper,
        }


READS = {
    "/getpos": lambda arm: {"pose": arm.wire_pose()},
    "/getpos_euler": lambda arm: {"pose": arm.euler()},
    "/getvel": lambda arm: {"vel": [arm.moved, 0, 0, 0, 0, 0]},
    "/getforce": lambda arm: {"force": [0.0] * 3},
    "/gettorque": lambda arm: {"torque": [0.0] * 3},
    "/getq": lambda arm: {"q": [0.0] * 7},
    "/getdq": lambda arm: {"dq": [0.0] * 7},
    "/getjacobian": lambda arm: {"jacobian": [[0.0] * 7] * 6},
    "/get_gripper": lambda arm: {"gripper": arm.gripper},
    "/getstate": lambda arm: arm.state(),
}
GRIPPER = {
    "/open_gripper": 1.0,
    "/close_gripper": 0.0,
    "/close_gripper_slow": 0.0,
    "/activate_gripper": 1.0,
    "/reset_gripper": 1.0,
}
TEXTS = ("/clearerr", "/startimp", "/stopimp", "/set_load", "/update_param", "/jointreset")


class Handler(BaseHTTPRequestHandler):
    arm: Arm
    journal: list
    faults: dict
    lock = threading.Lock()

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)) or 0)
        payload = json.loads(body) if body else None
        if self.path == "/_journal":
            return self._reply(200, json.dumps(self.journal))
        if self.path == "/_arm":
            return self._reply(200, json.dumps([self.arm.pose, self.arm.equilibrium]))
        if self.path == "/_fault":
            self.faults.update(payload)
            if "jump" in payload:
                self.arm.jump = payload["jump"]
            if "reflex" in payload:
                self.arm.reflex = payload["reflex"]
            return self._reply(200, "{}")
        with self.lock:
            self.journal.append([time.monotonic(), self.path, payload, list(self.arm.pose)])
        kind = self.faults.get(self.path)
        if kind and not self._fail(kind):
            return None
        try:
            reply = self._serve(payload)
        except Exception:
            return self._reply(500, "<h1>Internal Server Error</h1>")
        return self._reply(404, "not found") if reply is None else self._reply(200, reply)

    def _serve(self, payload):
        arm = self.arm
        if self.path in READS:
            if self.path in ("/getstate", "/getpos"):
                arm.advance()
            return json.dumps(READS[self.path](arm))
        if self.path == "/pose":
            values = [float(v) for v in payload["arr"]]
            if arm.order == "wxyz":
                values = [*values[:3], *values[4:], values[3]]
            arm.equilibrium = values
            arm.advance()
            return "Moved"
        if self.path in GRIPPER or self.path == "/move_gripper":
            if arm.gripper_type == "none":
                return None
            time.sleep(arm.gripper_s)
            arm.gripper = GRIPPER.get(self.path, 1.0)
            return "Moved"
        if self.path == "/clearerr":
            arm.reflex = False
        if self.path == "/jointreset":
            time.sleep(arm.gripper_s)
            arm.pose, arm.equilibrium = list(HOME), list(HOME)
        return "done" if self.path in TEXTS else None

    def _fail(self, kind):
        """Whether to go on and serve after all."""
        if kind == "500":
            self._reply(500, "<h1>Internal Server Error</h1>")
        elif kind == "hang":
            time.sleep(3.0)
        elif kind == "late":
            time.sleep(0.6)
            return True
        elif kind == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            for _ in range(60):
                time.sleep(0.05)
                try:
                    self.wfile.write(b" ")
                except OSError:
                    return False
        elif kind == "partial":
            text = json.dumps(self.arm.state())[:60].encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(text)
        elif kind == "closes":
            self.close_connection = True
            self.connection.close()
        else:
            replies = {
                "garbage": "\x00\x01 not JSON",
                "list": "[1, 2, 3]",
                "missing": '{"vel": [0, 0, 0, 0, 0, 0]}',
                "nan": json.dumps({**self.arm.state(), "pose": [float("nan")] * 7}),
                "short": json.dumps({**self.arm.state(), "pose": [0.5, 0.0]}),
                "unnormalised": json.dumps({**self.arm.state(), "pose": [0.5, 0, 0.3, 0, 0, 0, 0]}),
                "huge": "[" + "1," * 100_000 + "1]",
            }
            self._reply(200, replies[kind])
        return False

    def _reply(self, status, text):
        data = text.encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:
            return


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gripper", default="franka")
    parser.add_argument("--order", default="xyzw")
    parser.add_argument("--gripper-s", type=float, default=0.5)
    arguments = parser.parse_args()
    Handler.arm = Arm(arguments.gripper, arguments.order, arguments.gripper_s)
    Handler.journal, Handler.faults = [], {}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
