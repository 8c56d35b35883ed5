"""Synthetic e-commerce data of the shape that the pipeline ingests: same files, columns, sizes and quirks.

Every draw is a uniform number of a seeded PCG64 turned into a value by integer weights or straight-line
quantiles. No logarithm or exponential takes part, so that no platform's mathematics library can move a byte.

The numbers that it draws from are in `workers.shop`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from workers.csv_files import write_csv
from workers.errors import SettingError
from workers.shop import (
    ADJECTIVES,
    BEHAVIOURS,
    BULKY_CENTS,
    BULKY_UNITS,
    CATEGORIES,
    CHARGE_WEIGHTS,
    COLOURS,
    COUPON_STATUSES,
    COUPON_WEIGHTS,
    CUSTOMER_GROWTH,
    CUSTOMER_ID_SPAN,
    CUSTOMERS,
    DAY_FILLERS,
    DAYS,
    DISCOUNT_PERCENTS,
    DOUBLE_SPACED,
    FEWEST_CUSTOMERS,
    FIRST_CUSTOMER_ID,
    FIRST_TRANSACTION_ID,
    GENDERS,
    HOME_BASKET_SHARES,
    HOME_CATEGORIES,
    HOME_LINE_SHARE,
    HOME_MONTH_FACTORS,
    LINE_COUNT_WEIGHTS,
    LINES,
    LOCATIONS,
    MONTH_WEIGHTS,
    MONTHS,
    OFFLINE_LEVEL_WEIGHTS,
    OFFLINE_STEP_USD,
    OLD_PRICE_SHARE,
    ONLINE_CENTS,
    PRICE_KNOTS,
    PRICE_LEVELS,
    QUANTITIES,
    QUANTITY_KNOTS,
    RETURN_SHARE,
    SEASON_FACTORS,
    SHARED_TRANSACTIONS,
    STANDARD_CENTS,
    TENURE_MONTHS,
    THIRD_CUSTOMER_LINES,
    THIRD_CUSTOMER_SHARE,
    TRANSACTION_ID_SPAN,
    TRANSACTIONS,
    UNSOLD_COUPON,
    VISIT_SIZE,
    WEEKDAY_WEIGHTS,
    WINTER_CENTS,
    WINTER_MONTHS,
    YEAR_START,
    Category,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


DRAWN_PERCENT = 80  # of the time is over when all lines are drawn: measured at scale 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedFile:
    """A file that has been written, and its number of rows without the header."""

    path: Path
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedData:
    """The five files in the order of writing, and the arguments that make them again."""

    files: tuple[GeneratedFile, ...]
    scale: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Catalogue:
    """Arrays by SKU (the home devices first), and `price_cents : (n_skus, 12 months)`."""

    sku: tuple[str, ...]
    description: tuple[str, ...]
    category: Ints
    weight: Ints
    price_cents: Ints
    home_skus: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Transactions:
    """Arrays by transaction in the order of time; `customer` and `day` are positions, not ids or dates."""

    customer: Ints
    day: Ints
    is_return: NDArray[np.bool_]
    behaviour: Ints
    lines: Ints


def generate(
    out: Path, *, scale: float = 1.0, seed: int = 2019, progress: Callable[[int], None] | None = None
) -> GeneratedData:
    """Paths and row counts of the five CSV files in `out`, byte-identical for the same scale and seed.

    `out` is created if missing and files of the same names are replaced, each atomically. `progress` gets the
    percentage done, never falling, 100 at the end. Transactions and lines grow with `scale`, customers as
    `scale ** 0.65`, the days are always those of 2019. Blocks: some 3 s and 350 MB for a million lines.

    Raises
    ------
    SettingError
        When `scale` is not a positive number, `seed` is negative, or `out` is, or lies in, a file.

    """
    _check_arguments(scale=scale, seed=seed)
    _make_directory(out)
    report = progress or _ignore
    report(0)
    streams = _streams(seed)
    behaviour = _pick(streams["behaviours"], [b.customers_percent for b in BEHAVIOURS], _customer_count(scale))
    span = CUSTOMER_ID_SPAN / CUSTOMERS
    ids = _ids(streams["customer ids"], first=FIRST_CUSTOMER_ID, span=span, size=behaviour.size)
    sales = _sales(streams, behaviour=behaviour, customer_ids=ids, scale=scale)
    report(DRAWN_PERCENT)
    tables = {
        "Online_Sales.csv": sales,
        "CustomersData.csv": _customers(streams["customers"], ids),
        "Discount_Coupon.csv": _coupons(),
        "Marketing_Spend.csv": _marketing_spend(streams["spend"]),
        "Tax_amount.csv": _taxes(),
    }
    files = _write_all(tables, out=out, report=report)
    return GeneratedData(files=files, scale=scale, seed=seed)


def _check_arguments(*, scale: float, seed: int) -> None:
    if not (math.isfinite(scale) and scale > 0):
        message = f"The scale must be a number above 0, not {scale:g}"
        raise SettingError(message, hint="Take 1 for the real data's size, 0.1 for a tenth")
    if seed < 0:
        message = f"The seed must be 0 or more, not {seed}"
        raise SettingError(message, hint="Take any whole number from 0 on")


def _make_directory(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        message = f"{out} is, or lies in, a file"
        raise SettingError(message, hint="Name a folder for the CSV files, or remove that file first") from error


def _ignore(_percent: int) -> None: ...


def _streams(seed: int) -> Mapping[str, np.random.Generator]:
    """Independent generators by part, so that a change in one part leaves the others' bytes alone."""
    parts = (
        "behaviours",
        "customer ids",
        "customers",
        "catalogue",
        "visits",
        "transactions",
        "products",
        "lines",
        "spend",
    )
    children = np.random.SeedSequence(seed).spawn(len(parts))
    return {part: np.random.Generator(np.random.PCG64(child)) for part, child in zip(parts, children, strict=True)}


def _pick(rng: np.random.Generator, weights: Sequence[int] | Ints, size: int) -> Ints:
    """Positions in `weights`, each drawn with its integer weight."""
    edges = np.cumsum(np.asarray(weights, dtype=np.int64))
    return np.searchsorted(edges, _below(rng, edges[-1], size), side="right").astype(np.int64)


def _below(rng: np.random.Generator, limit: int | Ints | Floats, size: int) -> Ints:
    """Whole numbers from 0 to below `limit`."""
    return np.floor(rng.random(size) * limit).astype(np.int64)


def _sample(rng: np.random.Generator, pool: Ints, size: int) -> Ints:
    """`size` distinct members of `pool` (all of it, if it is smaller), shuffled."""
    return pool[np.argsort(rng.random(pool.size), kind="stable")[:size]]


def _customer_count(scale: float) -> int:
    return max(FEWEST_CUSTOMERS, round(CUSTOMERS * math.pow(scale, CUSTOMER_GROWTH)))


def _ids(rng: np.random.Generator, *, first: int, span: float, size: int) -> Ints:
    """Rising ids from `first`, with gaps: `size` out of `size * span` numbers, both ends among them."""
    last = round(size * span) - 1
    inner = _sample(rng, np.arange(1, last), size - 2)
    return first + np.concatenate(([0], np.sort(inner), [last])).astype(np.int64)


def _catalogue(rng: np.random.Generator) -> _Catalogue:
    parts = [_category_products(rng, position) for position in range(len(CATEGORIES))]
    names = [pair for pairs, _, _ in parts for pair in pairs]
    return _Catalogue(
        sku=tuple(sku for sku, _ in names),
        description=tuple(description for _, description in names),
        category=np.repeat(np.arange(len(CATEGORIES)), [c.skus for c in CATEGORIES]),
        weight=np.concatenate([weight for _, weight, _ in parts]),
        price_cents=np.concatenate([price for _, _, price in parts]),
        home_skus=sum(c.skus for c in CATEGORIES[:HOME_CATEGORIES]),
    )


def _category_products(rng: np.random.Generator, position: int) -> tuple[list[tuple[str, str]], Ints, Ints]:
    """SKU and description pairs, weights and monthly prices of a category, the best seller first."""
    category = CATEGORIES[position]
    sizes = 1 + np.bincount(
        _below(rng, category.descriptions, category.skus - category.descriptions),
        minlength=category.descriptions,
    )
    of_product = np.repeat(np.arange(category.descriptions), sizes)
    variant = np.arange(category.skus) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    descriptions = _descriptions(rng, category)
    pairs = [
        (f"MKT{category.code}{p:04d}{v:04d}", descriptions[p])
        for p, v in zip(of_product.tolist(), variant.tolist(), strict=True)
    ]
    if category.code == "GIF":  # the one SKU of 12 characters
        pairs[0] = (pairs[0][0][:12], pairs[0][1])
    falling = 1_000_000 // (np.arange(category.skus) + 2 + category.skus // 20)  # Zipf, flatter for many SKUs
    weight: Ints = category.lines * 1_000_000 * falling // falling.sum()
    return pairs, weight, _monthly_prices(rng, category, of_product)


def _descriptions(rng: np.random.Generator, category: Category) -> list[str]:
    names = [f"{adjective} {noun} {colour}" for adjective, noun, colour in product(ADJECTIVES, category.nouns, COLOURS)]
    chosen = [names[i] for i in _sample(rng, np.arange(len(names)), category.descriptions)]
    code, doubled = DOUBLE_SPACED
    if category.code == code:
        chosen[doubled] = [name.replace(" ", "  ", 1) for name in chosen[doubled]]
    return chosen


def _monthly_prices(rng: np.random.Generator, category: Category, of_product: Ints) -> Ints:
    """`(n_skus, 12)` cents. All sizes of a product share its list price, each has its own price levels."""
    # Golden-ratio steps spread best sellers over the price range, so that no seed makes a year of dear ones.
    place = (0.5 + np.arange(category.descriptions) * 0.618034) % 1
    list_cents = np.rint(np.interp(place, PRICE_KNOTS, category.prices_usd) * 100).astype(np.int64)[of_product]
    levels, weights = PRICE_LEVELS
    level = np.array(levels)[_pick(rng, weights, of_product.size * 12)].reshape(-1, 12)
    prices: Ints = (list_cents[:, None] * level + 50) // 100
    return prices


def _sales(
    streams: Mapping[str, np.random.Generator], *, behaviour: Ints, customer_ids: Ints, scale: float
) -> pa.Table:
    """All lines in the order of time, text columns dictionary-encoded."""
    catalogue = _catalogue(streams["catalogue"])
    bought = _transactions(streams, behaviour=behaviour, scale=scale)
    of_line = np.repeat(np.arange(bought.day.size), bought.lines)
    sku = _line_products(streams["products"], catalogue, bought, of_line)
    rng = streams["lines"]
    owner = _line_owners(rng, bought, of_line, customers=behaviour.size)
    price = _line_prices(rng, catalogue, sku=sku, month=_month_of_day()[bought.day[of_line]])
    quantity = _quantities(rng, price)
    units = np.bincount(of_line, weights=quantity).astype(np.int64)
    span = TRANSACTION_ID_SPAN / TRANSACTIONS
    ids = _ids(rng, first=FIRST_TRANSACTION_ID, span=span, size=bought.day.size)
    charge = _delivery_charges(rng, units=units, month=_month_of_day()[bought.day])
    return pa.table(
        {
            "CustomerID": pa.array(customer_ids[owner]),
            "Transaction_ID": pa.array(ids[of_line]),
            "Transaction_Date": _text(bought.day[of_line], _dates()),
            "Product_SKU": _text(sku, catalogue.sku),
            "Product_Description": _text(sku, catalogue.description),
            "Product_Category": _text(catalogue.category[sku], [c.name for c in CATEGORIES]),
            "Quantity": pa.array(quantity),
            "Avg_Price": _money(price),
            "Delivery_Charges": _money(charge[of_line]),
            "Coupon_Status": _text(_coupon_statuses(rng, bought.is_return[of_line]), COUPON_STATUSES),
        }
    )


def _month_of_day() -> Ints:
    return np.array([(YEAR_START + timedelta(days=day)).month - 1 for day in range(DAYS)])


def _dates() -> tuple[str, ...]:
    days = (YEAR_START + timedelta(days=day) for day in range(DAYS))
    return tuple(f"{day.month}/{day.day}/{day.year}" for day in days)


def _transactions(streams: Mapping[str, np.random.Generator], *, behaviour: Ints, scale: float) -> _Transactions:
    customer, day, is_return = _visits(streams["visits"], behaviour=behaviour, scale=scale)
    rng = streams["transactions"]
    total = max(round(TRANSACTIONS * scale), customer.size)
    intensity = np.array([b.transactions for b in BEHAVIOURS])[behaviour[customer]]
    weight = np.rint(np.interp(rng.random(customer.size), *VISIT_SIZE) * intensity * 1_000).astype(np.int64)
    repeats = 1 + np.bincount(_pick(rng, weight + 1, total - customer.size), minlength=customer.size)
    visit = np.repeat(np.arange(customer.size), repeats)
    return _Transactions(
        customer=customer[visit],
        day=day[visit],
        is_return=is_return[visit],
        behaviour=behaviour[customer[visit]],
        lines=_line_counts(rng, transactions=total, lines=max(round(LINES * scale), total)),
    )


def _visits(rng: np.random.Generator, *, behaviour: Ints, scale: float) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """By visit, in the order of time: customer (each has one), day, whether it is to use a coupon."""
    counts = _visit_counts(rng, behaviour=behaviour, scale=scale)
    customer = np.repeat(np.arange(behaviour.size), counts)
    nth = np.arange(customer.size) - np.repeat(np.cumsum(counts) - counts, counts)
    edges = np.cumsum(_day_weights())
    day = np.searchsorted(edges, _places(rng, edges, behaviour[customer]), side="right")
    is_return = (nth % 2 == 1) & (rng.random(customer.size) < RETURN_SHARE)
    later = np.minimum(np.roll(day, 1) + 1 + _below(rng, 6, customer.size), DAYS - 1)
    day = np.where(is_return, later, day)
    extra_customer, extra_day = _visits_of_empty_days(rng, day, behaviour)
    day, customer = np.concatenate((day, extra_day)), np.concatenate((customer, extra_customer))
    is_return = np.concatenate((is_return, np.zeros(extra_day.size, dtype=np.bool_)))
    order = np.lexsort((rng.random(day.size), day))
    return customer[order], day[order], is_return[order]


def _places(rng: np.random.Generator, edges: Ints, behaviour: Ints) -> Ints:
    """Places on the weighted year by visit, evenly spread in a behaviour: chance would blur the months."""
    places = np.empty(behaviour.size, dtype=np.int64)
    for position, kind in enumerate(BEHAVIOURS):
        members = np.flatnonzero(behaviour == position)
        spread = (_sample(rng, np.arange(members.size), members.size) + rng.random(members.size)) / max(1, members.size)
        places[members] = np.floor(spread * edges[kind.last_day])
    return places


def _visit_counts(rng: np.random.Generator, *, behaviour: Ints, scale: float) -> Ints:
    """Visits by customer: as the behaviour says, and more when transactions outgrow customers."""
    counts = np.empty(behaviour.size, dtype=np.int64)
    for position, kind in enumerate(BEHAVIOURS):
        members = np.flatnonzero(behaviour == position)
        counts[members] = np.array(kind.visits)[_below(rng, len(kind.visits), members.size)]
    growth = max(1.0, scale * CUSTOMERS / behaviour.size)
    return np.floor(counts * growth + rng.random(behaviour.size) * (growth > 1)).astype(np.int64)


def _visits_of_empty_days(rng: np.random.Generator, day: Ints, behaviour: Ints) -> tuple[Ints, Ints]:
    """Visits on the days without any; none when there are too few visits for a whole year anyway."""
    empty = np.setdiff1d(np.arange(DAYS), day)
    fillers = np.flatnonzero(behaviour == DAY_FILLERS)
    if day.size < DAYS or not fillers.size:
        empty = empty[:0]
    return fillers[_below(rng, fillers.size, empty.size)], empty


def _day_weights() -> Ints:
    month = _month_of_day()
    weekday = (np.arange(DAYS) + YEAR_START.weekday()) % 7
    # Divided by the month's own weekdays, or a month with five Mondays would come out short.
    by_weekday = np.array(WEEKDAY_WEIGHTS)[weekday]
    in_month = np.bincount(month, by_weekday).astype(np.int64)[month]
    weights: Ints = np.array(MONTH_WEIGHTS)[month] * by_weekday * 1_000_000 // in_month
    return weights


def _line_counts(rng: np.random.Generator, *, transactions: int, lines: int) -> Ints:
    """Lines by transaction, `lines` in all."""
    counts = 1 + _pick(rng, LINE_COUNT_WEIGHTS, transactions)
    while missing := lines - int(counts.sum()):
        step = 1 if missing > 0 else -1
        movable = np.flatnonzero(counts < len(LINE_COUNT_WEIGHTS) if step > 0 else counts > 1)
        counts[_sample(rng, movable, abs(missing))] += step
    return counts


def _line_products(rng: np.random.Generator, catalogue: _Catalogue, bought: _Transactions, of_line: Ints) -> Ints:
    """SKU positions by line, no SKU twice in a transaction."""
    edges = np.cumsum(catalogue.weight)
    home_edge = edges[catalogue.home_skus - 1]
    is_home = _home_lines(rng, bought, of_line)
    low, high = np.where(is_home, 0, home_edge), np.where(is_home, home_edge, edges[-1])
    sku = np.empty(of_line.size, dtype=np.int64)
    open_lines = np.arange(of_line.size)
    while open_lines.size:
        draw = low[open_lines] + _below(rng, (high - low)[open_lines], open_lines.size)
        sku[open_lines] = np.searchsorted(edges, draw, side="right")
        open_lines = _repeated(of_line * len(catalogue.sku) + sku)
    return _with_every_sku(rng, sku, len(catalogue.sku))


def _repeated(keys: Ints) -> Ints:
    """Positions of the keys that occur at an earlier position already."""
    order = np.argsort(keys, kind="stable")
    return np.sort(order[1:][np.diff(keys[order]) == 0])


def _home_lines(rng: np.random.Generator, bought: _Transactions, of_line: Ints) -> NDArray[np.bool_]:
    """Whether a line is drawn from the home devices."""
    longest = len(LINE_COUNT_WEIGHTS)
    by_count = np.array(HOME_BASKET_SHARES + (0.0,) * (longest - len(HOME_BASKET_SHARES)))[bought.lines - 1]
    by_month = np.array(HOME_MONTH_FACTORS)[_month_of_day()[bought.day]]
    by_behaviour = np.array([b.home_percent / 100 for b in BEHAVIOURS])[bought.behaviour]
    is_home = rng.random(bought.day.size) < by_count * by_month * by_behaviour
    is_first = np.diff(of_line, prepend=-1) > 0
    of_home: NDArray[np.bool_] = is_home[of_line] & (is_first | (rng.random(of_line.size) < HOME_LINE_SHARE))
    return of_home


def _with_every_sku(rng: np.random.Generator, sku: Ints, skus: int) -> Ints:
    """`sku` with each unsold SKU in the place of one line of another, if there are lines enough."""
    unsold = np.setdiff1d(np.arange(skus), sku)
    if sku.size < skus:
        return sku
    # A line that is not its SKU's first can go, and that SKU stays sold.
    filled = sku.copy()
    filled[_sample(rng, _repeated(sku), unsold.size)] = unsold
    return filled


def _line_owners(rng: np.random.Generator, bought: _Transactions, of_line: Ints, *, customers: int) -> Ints:
    """By line: the transaction's customer, but others for some lines of the shared transactions."""
    owner = bought.customer[of_line]
    first = np.cumsum(bought.lines) - bought.lines
    wanted = round(SHARED_TRANSACTIONS * bought.day.size)
    shared = _sample(rng, np.flatnonzero(bought.lines > 1), wanted)
    owner[(first + bought.lines - 1)[shared]] = _companions(rng, bought, shared, customers=customers)
    third = shared[(bought.lines[shared] >= THIRD_CUSTOMER_LINES) & (rng.random(shared.size) < THIRD_CUSTOMER_SHARE)]
    owner[first[third] + 1] = _companions(rng, bought, third, customers=customers)
    return owner


def _companions(rng: np.random.Generator, bought: _Transactions, shared: Ints, *, customers: int) -> Ints:
    """Another customer for each transaction, one who buys on the same day where there is any."""
    day, own = bought.day[shared], bought.customer[shared]
    start = np.searchsorted(bought.day, day, side="left")
    size = np.searchsorted(bought.day, day, side="right") - start
    found = own.copy()
    for _ in range(20):  # enough unless the day has a single customer
        found = np.where(found == own, bought.customer[start + _below(rng, size, shared.size)], found)
    return np.where(found == own, (own + 1) % customers, found)


def _line_prices(rng: np.random.Generator, catalogue: _Catalogue, *, sku: Ints, month: Ints) -> Ints:
    is_old = rng.random(sku.size) < OLD_PRICE_SHARE
    return catalogue.price_cents[sku, np.maximum(month - is_old, 0)]


def _quantities(rng: np.random.Generator, price: Ints) -> Ints:
    place = rng.random(price.size)
    band = np.searchsorted([limit for limit, _ in QUANTITIES], price)
    quantity = np.empty(price.size, dtype=np.int64)
    for position, (_, values) in enumerate(QUANTITIES):
        members = np.flatnonzero(band == position)
        quantity[members] = np.floor(np.interp(place[members], QUANTITY_KNOTS, values))
    return quantity


def _delivery_charges(rng: np.random.Generator, *, units: Ints, month: Ints) -> Ints:
    """Cents by transaction."""
    (free, *others), weights = CHARGE_WEIGHTS
    edges = np.cumsum(weights)
    place = rng.random(units.size)
    place = np.where(units >= BULKY_UNITS, np.maximum(place, rng.random(units.size)), place)
    kind = np.searchsorted(edges, np.floor(place * edges[-1]), side="right")
    standard = np.where(np.isin(month, WINTER_MONTHS), WINTER_CENTS, STANDARD_CENTS)
    bulky = np.rint(np.interp(rng.random(units.size), *BULKY_CENTS)).astype(np.int64)
    fixed = np.array([free, 0, *others, 0])[kind]
    return np.select([kind == 1, kind == len(weights) - 1], [standard, bulky], fixed)


def _coupon_statuses(rng: np.random.Generator, is_return: NDArray[np.bool_]) -> Ints:
    ordinary, returning = (_pick(rng, weights, is_return.size) for weights in COUPON_WEIGHTS)
    return np.where(is_return, returning, ordinary)


def _customers(rng: np.random.Generator, ids: Ints) -> pa.Table:
    """One row a customer, in no order."""
    shortest, longest = TENURE_MONTHS
    return pa.table(
        {
            "CustomerID": pa.array(_sample(rng, ids, ids.size)),
            "Gender": _text(_pick(rng, GENDERS[1], ids.size), GENDERS[0]),
            "Location": _text(_pick(rng, LOCATIONS[1], ids.size), LOCATIONS[0]),
            "Tenure_Months": pa.array(shortest + _below(rng, longest - shortest + 1, ids.size)),
        }
    )


def _coupons() -> pa.Table:
    """One row a month and category, quarter by quarter like the real file."""
    prefixes = [(c.name, c.coupon) for c in CATEGORIES if c.coupon] + [UNSOLD_COUPON]
    size = len(DISCOUNT_PERCENTS)
    rows = [
        (month, name, f"{prefix}{percent}", percent)
        for start in range(0, len(MONTHS), size)
        for name, prefix in prefixes
        for month, percent in zip(MONTHS[start : start + size], DISCOUNT_PERCENTS, strict=True)
    ]
    names = ("Month", "Product_Category", "Coupon_Code", "Discount_pct")
    return pa.table(dict(zip(names, map(pa.array, zip(*rows, strict=True)), strict=True)))


def _marketing_spend(rng: np.random.Generator) -> pa.Table:
    factor = np.array(SEASON_FACTORS)[_month_of_day()]
    week = np.arange(DAYS) // 7
    level = 1 + _pick(rng, OFFLINE_LEVEL_WEIGHTS, int(week[-1]) + 1)[week]
    offline = np.minimum(np.rint(level * factor), len(OFFLINE_LEVEL_WEIGHTS)).astype(np.int64) * OFFLINE_STEP_USD
    online = np.rint(np.interp(rng.random(DAYS), *ONLINE_CENTS) * factor).astype(np.int64)
    return pa.table(
        {
            "Date": pa.array(_dates()),
            "Offline_Spend": pa.array(offline),
            "Online_Spend": _money(online),
        }
    )


def _taxes() -> pa.Table:
    return pa.table(
        {
            "Product_Category": pa.array([c.name for c in CATEGORIES]),
            "GST": _money(np.array([c.gst_percent for c in CATEGORIES])),
        }
    )


def _text(positions: Ints, values: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(positions.astype(np.int32), pa.array(values, pa.string()))


def _money(hundredths: Ints) -> pa.Array:
    """Text like the source's, without trailing zeros: `6`, `6.5`, `12.99`."""
    distinct, positions = np.unique(hundredths, return_inverse=True)
    return _text(positions, [f"{h // 100}.{h % 100:02d}".rstrip("0").rstrip(".") for h in distinct.tolist()])


def _write_all(
    tables: Mapping[str, pa.Table], *, out: Path, report: Callable[[int], None]
) -> tuple[GeneratedFile, ...]:
    total = sum(table.num_rows for table in tables.values())
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        report(DRAWN_PERCENT + (100 - DRAWN_PERCENT) * done // total)

    for name, table in tables.items():
        write_csv(table, out / name, count=count)
    return tuple(GeneratedFile(path=out / name, rows=table.num_rows) for name, table in tables.items())
