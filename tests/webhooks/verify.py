"""A server, a receiver that is down at first, and the specification's library between them."""

import json
import sys
import tempfile
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

sys.path.append("tests/common")
from serving import serving, until  # noqa: E402


class Receiver(BaseHTTPRequestHandler):
    calls: list[tuple[dict[str, str], bytes]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.calls.append((dict(self.headers.items()), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def request(base: str, method: str, path: str, body: object = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(base + path, data, headers, method=method)) as answer:
        return json.loads(answer.read() or b"{}")


def free_port() -> int:
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        return server.server_address[1]


def check(base: str) -> None:
    port = free_port()
    hook = request(base, "POST", "/v1/webhooks", {"url": f"http://127.0.0.1:{port}/hook"})
    path = f"/v1/webhooks/{hook['id']}"

    def latest() -> dict:
        return request(base, "GET", f"{path}/deliveries")["data"][0]

    # Nobody listens yet: the call fails and is repeated after five seconds.
    upload = urllib.request.Request(f"{base}/v1/datasets/broken.npz", b"PK\x03\x04 no archive", method="PUT")
    urllib.request.urlopen(upload).read()
    until("a call that fails", lambda: (page := request(base, "GET", f"{path}/deliveries")["data"]) and page[0]["calls"])
    assert latest()["calls"][0]["status"] is None and latest()["calls"][0]["error"], latest()
    print(f"down: {latest()['calls'][0]['error']}; next call at {latest()['next_call_at']}")

    receiver = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    until("the repeated call", lambda: Receiver.calls)
    headers, body = Receiver.calls[0]
    event = Webhook(hook["secret"]).verify(body, headers)
    assert event["type"] == "dataset.invalid" and event["data"]["name"] == "broken.npz", event
    print(f"back: {event['type']} of {event['data']['name']}, verified")

    for wrong in (body + b" ", body.replace(b"invalid", b"ready")):
        try:
            Webhook(hook["secret"]).verify(wrong, headers)
        except WebhookVerificationError:
            continue
        sys.exit("FAILED: a changed body was taken")

    until("its log", lambda: latest()["state"] == "delivered")
    request(base, "POST", f"{path}/deliveries/{latest()['id']}/redeliver", {})
    until("the call by hand", lambda: len(Receiver.calls) == 2)
    again, same = Receiver.calls[1]
    assert same == body and Webhook(hook["secret"]).verify(same, again) == event
    print("by hand: the same event, verified")

    renewed = request(base, "POST", f"{path}/secret", {})["secret"]
    request(base, "POST", f"{path}/test", {})
    until("the test call", lambda: len(Receiver.calls) == 3)
    headers, body = Receiver.calls[2]
    for secret in (hook["secret"], renewed):
        assert Webhook(secret).verify(body, headers)["type"] == "webhook.test"
    print("after a change of the secret: verified by both")
    receiver.shutdown()


def main() -> None:
    binary = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        with serving(binary, folder, "--allow-address", "127.0.0.1") as address:
            check(address)
    print("webhooks: passed")


main()
