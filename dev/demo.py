"""`make demo`: the main job once, for real, and everything it did.

Three services are started on a temporary database, called over HTTP and stopped again. Every fact
that is shown is checked; the exit code is 1 when one of them is not as it should be.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import aiohttp
from rich.console import Console

from dev import sample
from dev.calls import Reply, UnexpectedReply
from dev.counters import Counters, counters
from dev.otlp import receive_traces
from dev.scene import JOB, DemoFailed, Products, Scene, expect, money, table_of
from dev.stack import ServiceFailed, run, stack, tail
from orchestrator.story.spans import Span

PROMPT_EXPORTS = {"OTEL_BSP_SCHEDULE_DELAY": "200"}  # milliseconds
TRACE_SECONDS = 15
PIPE_WIDTH = 110
# The demo is the caller in the W3C sense: it chooses the trace that its request belongs to.
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CORRELATION_ID = "req-456"
BATCH = ("A-1", "A-2", "A-3")


async def main() -> int:
    """Show it; everything is stopped and removed at the end, however it ends."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH)
    started = monotonic()
    with TemporaryDirectory(prefix="b2b-demo-") as folder:
        try:
            async with (
                receive_traces() as traces,
                stack(
                    Path(folder), environment={"OTEL_EXPORTER_OTLP_ENDPOINT": traces.url, **PROMPT_EXPORTS}
                ) as services,
                aiohttp.ClientSession() as http,
            ):
                await Demo(console, services, traces, http).show()
        except (ServiceFailed, UnexpectedReply, DemoFailed, aiohttp.ClientError) as failure:
            console.print(*_log_tails(Path(folder)), sep="\n\n", markup=False, soft_wrap=True)
            console.print(f"\nThe demo failed: {failure}", style="red", markup=False, soft_wrap=True)
            return 1
    console.print(
        f"\nEverything above was checked, stopped and removed again, in {monotonic() - started:.0f} s. "
        "Next: make up, and try it yourself.",
        style="green",
    )
    return 0


class Demo(Scene):
    """The parts of the demo, each with what has to be true in it."""

    async def show(self) -> None:
        """Show all parts in their order."""
        data = await sample.load(self.http, self.services)
        stock, metrics = await self.products(), await counters(self.http, self.services)
        self.console.print(
            "Three services run on a database of their own: "
            + ", ".join(f"{service.name} {service.url}" for service in self.services)
        )
        quantities = dict(zip((product["id"] for product in data.products), (2, 8, 10), strict=False))
        request = {
            "customer_id": data.customer["id"],
            "items": [{"product_id": id_, "qty": qty} for id_, qty in quantities.items()],
            "idempotency_key": "unique-key-123",
            "correlation_id": CORRELATION_ID,
        }

        first = await self.order(request, quantities, stock)
        await self.story(first.json["saga_id"])
        stock = await self.stock(stock, quantities)
        await self.replay(request, first)
        await self.reuse(request)
        await self.shortage(request, stock)
        expect("the stock after a replay and two refusals", await self.products(), stock)
        await self.batch(request["customer_id"], data.products)
        await self.moved(metrics)
        await self.ledger()

    async def order(self, request: dict[str, Any], quantities: dict[int, int], products: Products) -> Reply:
        """The main job."""
        self.title(f"The order: POST {JOB}")
        headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
        reply = await self.job(request, 201, headers)
        answer, order = reply.json, reply.json["data"]["order"]
        table = table_of("SKU", "name", "qty>", "unit price>", "subtotal>")
        for item in order["items"]:
            currency = order["currency"]
            table.add_row(
                item["sku"],
                item["name"],
                str(item["qty"]),
                money(item["unit_price_cents"], currency),
                money(item["subtotal_cents"], currency),
            )
        self.console.print(table)
        self.console.print(
            f"{order['order_number']} of {answer['data']['customer']['name']} is [green]{order['status']}[/]:"
            f" [bold]{money(order['total_cents'], order['currency'])}[/],"
            f" correlation id {answer['correlation_id']}"
        )

        expect("success", answer["success"], wanted=True)
        expect("the order's status", order["status"], "CONFIRMED")
        expect("the correlation id", answer["correlation_id"], CORRELATION_ID)
        expect("the order's items", {item["product_id"]: item["qty"] for item in order["items"]}, quantities)
        wanted = sum(products[id_]["price_cents"] * qty for id_, qty in quantities.items())
        expect("the order's total", order["total_cents"], wanted)
        return reply

    async def story(self, saga_id: str) -> None:
        """What operators are told of it: the saga, the order, the ledger, the trace down to the commits."""
        self.title(f"Its story: python -m orchestrator trace {CORRELATION_ID} --traces traces.json")
        spans = await self.traces.complete(TRACE_ID, PARENT_ID, TRACE_SECONDS)
        expect("that the trace is complete", spans != [], wanted=True)
        file = self.services.folder / "traces.json"
        self.traces.write(file)
        told = await self.command(self.services.orchestrator, "trace", CORRELATION_ID, "--traces", str(file))
        self.console.print(told.strip(), markup=False, soft_wrap=True)

        saga = (await self.get(f"{self.services.orchestrator.url}/orchestrator/sagas/{saga_id}"))["data"]
        expect("the saga's status", saga["status"], "SUCCEEDED")
        steps = [(step["step"], step["outcome"]) for step in saga["steps"]]
        wanted = ["validate_customer", "create_order", "confirm_order"]
        expect("the saga's steps", steps, [(step, "done") for step in wanted])
        expect(
            "the services in the trace", {span.service for span in spans}, {one.name for one in self.services}
        )
        expect("the spans that failed", [span.name for span in spans if span.failed], [])
        expect("orders' commits in the trace", _commits(spans, "orders"), 2)

    async def stock(self, before: Products, quantities: dict[int, int]) -> Products:
        """Which stock moved."""
        self.title("The stock it moved")
        after = await self.products()
        table = table_of("SKU", "before>", "after>", "moved>", "reserved>")
        for id_, product in sorted(before.items()):
            moved = after[id_]["stock"] - product["stock"]
            table.add_row(
                product["sku"],
                str(product["stock"]),
                str(after[id_]["stock"]),
                f"[bold]{moved:+}[/]" if moved else "",
                str(after[id_]["reserved"]),
            )
            expect(f"the stock of {product['sku']} that moved", -moved, quantities.get(id_, 0))
            expect(f"what is reserved of {product['sku']}", after[id_]["reserved"], 0)
        self.console.print(table)
        return after

    async def replay(self, request: dict[str, Any], first: Reply) -> None:
        """The same request with the same key."""
        self.title("The same request with the same key again")
        again = await self.job(request, 201)
        self.console.print(
            f"{again.status}, Idempotent-Replayed: {again.headers.get('Idempotent-Replayed')}, the same "
            f"{len(again.body)} bytes: {again.json['data']['order']['order_number']}, no second order"
        )

        expect("Idempotent-Replayed", again.headers.get("Idempotent-Replayed"), "true")
        expect("the bytes of the replay", again.body, first.body)
        found = await self.get(f"{self.services.orders.url}/admin/orders/find-all")
        expect("the number of orders", len(found["data"]), 1)

    async def reuse(self, request: dict[str, Any]) -> None:
        """Another request with the same key."""
        self.title("Another request with the same key")
        other = {**request, "items": [{**request["items"][0], "qty": 3}]}
        problem = (await self.job(other, 422)).json
        self.console.print(f"{problem['status']} {problem['code']}: {problem['detail']}", markup=False)

        expect("the problem's code", problem["code"], "idempotency.key_reused")

    async def shortage(self, request: dict[str, Any], products: Products) -> None:
        """More than there is."""
        self.title("More than there is")
        product = products[request["items"][0]["product_id"]]
        much = product["available"] + 1
        items = [{"product_id": product["id"], "qty": much}]
        problem = (await self.job({**request, "items": items, "idempotency_key": "unique-key-124"}, 409)).json
        table = table_of("SKU", "requested>", "available>")
        for short in problem["shortages"]:
            table.add_row(short["sku"], str(short["requested"]), str(short["available"]))
        self.console.print(f"{problem['status']} {problem['code']}, refused in step {problem['step']}")
        self.console.print(table)

        expect("the problem's code", problem["code"], "stock.insufficient")
        wanted = {"product_id": product["id"], "sku": product["sku"], "requested": much}
        expect("the shortages", problem["shortages"], [{**wanted, "available": product["available"]}])

    async def batch(self, customer_id: int, products: list[dict[str, Any]]) -> None:
        """A file of orders, run twice."""
        self.title("A file of orders, run twice: python -m orchestrator job orders.csv")
        lines = [f"{name},{customer_id},{one['id']},5" for name, one in zip(BATCH, products, strict=False)]
        file = self.services.folder / "orders.csv"
        file.write_text("\n".join(["reference,customer_id,product_id,qty", *lines, "A-4,no customer,1,5\n"]))
        runs = [await self.run_job(file) for _ in range(2)]
        table = table_of("line>", "reference", "status", "order", "run again", "detail")
        for first, again in zip(*runs, strict=True):
            table.add_row(
                str(first["line"]),
                first["reference"],
                first["status"],
                first["order_number"],
                "not repeated" if again["replayed"] else again["status"],
                first["detail"],
            )
        self.console.print(table)

        for results in runs:
            statuses = {result["reference"]: result["status"] for result in results}
            expect("the job's results", statuses, {**dict.fromkeys(BATCH, "succeeded"), "A-4": "invalid"})
        found = await self.get(f"{self.services.orders.url}/admin/orders/find-all")
        expect("the number of orders", len(found["data"]), 1 + len(BATCH))

    async def run_job(self, file: Path) -> list[dict[str, Any]]:
        """The results of one run, by line. Not all orders succeed, so its exit code is 1."""
        orchestrator = self.services.orchestrator
        written = await self.command(orchestrator, "job", str(file), "--url", orchestrator.url, exit_code=1)
        return sorted(map(json.loads, written.splitlines()), key=lambda result: int(result["line"]))

    async def moved(self, before: Counters) -> None:
        """The counters that all this moved."""
        self.title("The metrics it moved: GET /metrics on the admin ports")
        after = await counters(self.http, self.services)
        moved = {
            key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)
        }
        table = table_of("service", "counter", "moved>")
        for (service, counter), difference in moved.items():
            table.add_row(service, counter, f"+{difference:,.0f}")
        self.console.print(table)

        expect(
            "orders confirmed", moved.get(("orders", "b2b_orders_total{outcome=confirmed}")), 1 + len(BATCH)
        )
        replayed = "b2b_idempotency_total{result=replayed,service=orchestrator}"
        expect("requests replayed", moved.get(("orchestrator", replayed)), 1 + len(BATCH))

    async def ledger(self) -> None:
        """Whether stock, reservations and totals equal what the ledger says."""
        self.title("The books: python -m orders reconcile")
        self.console.print((await self.command(self.services.orders, "reconcile")).strip(), markup=False)


def _log_tails(folder: Path) -> list[str]:
    return [f"The end of {log.name}:\n{tail(log)}" for log in sorted(folder.glob("*.log"))]


def _commits(spans: list[Span], service: str) -> int:
    return sum(span.service == service and span.name == "COMMIT" for span in spans)


if __name__ == "__main__":
    sys.exit(run(main()))
