"""Asks a Prometheus for every panel of a dashboard and for every rule it has.

Usage: ask.py URL DASHBOARD NODES

A query must be answered without an error or a warning. One that asks for what is so at the moment may find nothing; every other
one must find something.
"""

import json
import sys
import time
import urllib.parse
import urllib.request

PATIENCE = 60


def get(path):
    with urllib.request.urlopen(base + path, timeout=10) as answer:
        return json.load(answer)


def query(text):
    answer = get("/api/v1/query?" + urllib.parse.urlencode({"query": text}))
    assert answer["status"] == "success", (text, answer)
    assert not answer.get("warnings"), (text, answer["warnings"])
    return answer["data"]["result"]


def eventually(said, ask):
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if ask():
                return
        except OSError as error:
            said = f"{said} ({error})"
        if time.monotonic() > end:
            sys.exit(f"not within {PATIENCE} s: {said}")
        time.sleep(0.5)


base, dashboard, nodes = sys.argv[1], sys.argv[2], int(sys.argv[3])
eventually(f"{nodes} nodes are up", lambda: len(query('up{job="tandem"} == 1')) == nodes)
eventually("every node has a peer", lambda: len(query('sum by (instance) (tandem_peers{job="tandem"}) > 0')) == nodes)
with open(dashboard, encoding="utf-8") as file:
    panels = json.load(file)["panels"]
queries = [(panel["title"], target["expr"]) for panel in panels for target in panel["targets"]]
for title, text in queries:
    text = text.replace("$node", ".*")
    # A comparison asks for what is so at the moment.
    if " > 0" in text or " == 1" in text:
        query(text)
    else:
        eventually(f"{title}: {text} finds something", lambda text=text: query(text))
rules = [rule for group in get("/api/v1/rules")["data"]["groups"] for rule in group["rules"]]
eventually(
    "every rule was evaluated",
    lambda: all(
        rule["health"] == "ok"
        for group in get("/api/v1/rules")["data"]["groups"]
        for rule in group["rules"]
    ),
)
for rule in rules:
    query(rule["query"])
firing = [alert["labels"]["alertname"] for alert in get("/api/v1/alerts")["data"]["alerts"] if alert["state"] == "firing"]
assert not firing, f"alerts of a healthy network: {firing}"
print(f"{nodes} nodes, {len(queries)} queries of {len(panels)} panels, {len(rules)} rules: all answered")
