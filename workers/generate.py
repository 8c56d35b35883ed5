"""Synthetic e-commerce data of the shape that the pipeline ingests: same files, columns, sizes and quirks.

Every draw is a uniform number of a seeded PCG64 turned into a value by integer weights or straight-line
quantiles. No logarithm or exponential takes part, so that no platform's mathematics library can move a byte.

The file is long because the shape (a third of it) stands in one place, next to what draws from it.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import csv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Quantiles = tuple[tuple[float, ...], tuple[float, ...]]


class Category(NamedTuple):
    """One product category: a row of the table below, where columns read better than keywords."""

    name: str
    code: str
    skus: int
    descriptions: int
    lines: int  # share of the lines of its basket kind, in 1/10,000 of all lines
    prices_usd: tuple[float, float, float, float, float]  # at PRICE_KNOTS of the SKUs
    gst_percent: int
    coupon: str | None  # None: sold, but without a coupon row
    nouns: tuple[str, ...]


class Behaviour(NamedTuple):
    """One latent kind of customer, for the segmentation to find again."""

    name: str
    customers_percent: int
    visits: tuple[int, ...]  # days with a purchase at scale 1, each number equally likely
    transactions: int  # weight of a visit when transactions are dealt out
    last_day: int  # of the year, from 0; later ones only to return with a coupon
    home_percent: int = 100  # how likely a basket of home devices is, against the average
    is_bulk: bool = False  # the larger of two drawn quantities is taken


# --- Sizes at scale 1: the real data's -------------------------------------------------------------------
CUSTOMERS, TRANSACTIONS, LINES = 1_468, 25_061, 52_924
FIRST_CUSTOMER_ID, CUSTOMER_ID_SPAN = 12_346, 5_938  # a quarter of the ids is in use
FIRST_TRANSACTION_ID, TRANSACTION_ID_SPAN = 16_679, 31_819  # four fifths are in use: gaps of 1 to 8
CUSTOMER_GROWTH = 0.65  # customers grow as scale**0.65: 10,290 at scale 20; they also buy more often
FEWEST_CUSTOMERS = 5
YEAR_START, DAYS = date(2019, 1, 1), 365

# fmt: off
# --- The catalogue: measured SKUs, descriptions, line shares and price quantiles, rounded -----------------
PRICE_KNOTS = (0.0, 0.05, 0.5, 0.95, 1.0)
HOME_CATEGORIES = 3  # the first rows: a home-device basket draws from these, any other from the rest
CATEGORIES = (
    Category("Nest-USA", "NUS", 9, 9, 2650, (19, 79, 120, 180, 200), 10, "HEAT", ("Thermostat", "Doorbell")),
    Category("Nest", "NST", 8, 8, 415, (20, 99, 199, 330, 350), 5, "NEST", ("Indoor Camera", "Smoke Alarm")),
    Category("Nest-Canada", "NCA", 5, 5, 60, (104, 104, 149, 200, 205), 10, "MAPLE", ("Outdoor Camera",)),
    Category("Apparel", "APP", 923, 211, 3420, (2, 4, 13, 38, 120), 18, "WEAR",
             ("Tee", "Hoodie", "Polo Shirt", "Jacket", "Quarter Zip", "Baby Bodysuit", "Socks", "Vest")),
    Category("Office", "OFF", 44, 43, 1230, (0.4, 1, 2.5, 9, 40), 12, "DESK", ("Gel Pen", "Sticker Sheet")),
    Category("Drinkware", "DRI", 31, 28, 660, (1, 1.6, 10.5, 25, 35), 18, "EXTRA", ("Tumbler", "Mug")),
    Category("Lifestyle", "LIF", 22, 16, 580, (1.2, 1.6, 3, 9, 35), 18, "EXTRA", ("Sunglasses", "Lip Balm")),
    Category("Bags", "BAG", 17, 17, 360, (1, 4, 12.5, 100, 150), 18, "CARRY", ("Tote Bag", "Duffel")),
    Category("Headgear", "HEA", 18, 18, 150, (9, 10.5, 15, 23, 33), 5, "HATS", ("Cap", "Beanie")),
    Category("Notebooks & Journals", "NTB", 14, 14, 140, (5, 5, 12, 23, 45), 5, "WRITE", ("Journal",)),
    Category("Waze", "WAZ", 23, 10, 100, (1.6, 1.6, 5.5, 19, 20), 18, "ROAD", ("Dashboard Mount",)),
    Category("Bottles", "BOT", 2, 2, 50, (1.3, 2.4, 3, 5, 9), 5, "SIP", ("Water Bottle",)),
    Category("Accessories", "ACC", 7, 7, 45, (2.4, 2.4, 4, 40, 60), 10, "PLUS", ("Key Ring",)),
    Category("Fun", "FUN", 3, 3, 30, (3.6, 3.6, 7, 9, 9), 18, None, ("Puzzle Cube",)),
    Category("Gift Cards", "GIF", 6, 5, 30, (10, 25, 100, 250, 250), 5, "GIVE", ("Gift Card",)),
    Category("Housewares", "HOU", 1, 1, 25, (1.4, 1.4, 2, 2.5, 19), 12, "HOUSE", ("Coaster",)),
    Category("Google", "GOO", 2, 2, 20, (11, 11, 14.5, 25, 25), 10, None, ("Desk Clock",)),
    Category("Backpacks", "BPK", 3, 2, 17, (38, 38, 80, 100, 103), 10, None, ("Backpack",)),
    Category("More Bags", "MBG", 2, 2, 9, (17.5, 17.5, 17.5, 22.5, 33), 18, None, ("Messenger Bag",)),
    Category("Android", "AND", 5, 1, 8, (11, 11, 16, 20, 20), 10, "ROBOT", ("Toy Figure",)),
)
# fmt: on
UNSOLD_COUPON = ("Notebooks", "PAGE")  # has coupon rows, is never sold
ADJECTIVES = (
    "Daily",
    "Classic",
    "Compact",
    "Heritage",
    "Light",
    "Modern",
    "Organic",
    "Slim",
    "Soft",
    "Urban",
)
COLOURS = ("Amber", "Black", "Cobalt", "Forest", "Grey", "Ivory", "Navy", "Red")
DOUBLE_SPACED = ("APP", slice(50, 55))  # middling sellers, so that 0.9 % of the lines have a double space
# Percent of the list price by month, and weights: some 4 prices per SKU over the year.
PRICE_LEVELS = ((100, 80, 90, 115, 130), (50, 22, 12, 10, 6))
OLD_PRICE_SHARE = 0.2  # lines that still pay last month's price: SKU-days have one or two prices

# --- Customers: shares of behaviours chosen so that purchase days per customer come out as measured -------
END_OF_AUGUST, END_OF_YEAR = 242, 364
BEHAVIOURS = (
    Behaviour("frequent big", 6, (4, 5, 6, 7, 8, 9, 9, 12, 26), 10, END_OF_YEAR),
    Behaviour("loyal", 18, (3, 3, 4, 4, 5), 8, END_OF_YEAR),
    Behaviour("rare big spender", 10, (1, 1, 1, 2), 16, END_OF_YEAR, home_percent=140, is_bulk=True),
    Behaviour("occasional", 36, (1, 1, 1, 2), 7, END_OF_YEAR, home_percent=90),
    Behaviour("lapsed", 30, (1, 1, 2, 2), 9, END_OF_AUGUST),
)
DAY_FILLERS = 0  # the behaviour that buys on the days on which nobody else did
GENDERS = (("F", "M"), (64, 36))
LOCATIONS = (("California", "Chicago", "New York", "New Jersey", "Washington DC"), (32, 31, 22, 10, 5))
TENURE_MONTHS = (2, 50)  # uniform

# --- Visits and transactions ------------------------------------------------------------------------------
# Of those who stay all year. The lapsed add to January to August, which makes 10 % in August and in December.
MONTH_WEIGHTS = (75, 59, 70, 64, 72, 69, 74, 86, 92, 102, 112, 130)
WEEKDAY_WEIGHTS = (85, 92, 175, 171, 169, 154, 154)  # Monday and Tuesday are half as busy
RETURN_SHARE = 0.4  # of every second visit: 1 to 6 days after the visit before, mostly to use its coupon
VISIT_SIZE: Quantiles = ((0, 0.25, 0.5, 0.75, 0.9, 0.99, 1), (0, 1.5, 4.5, 10.5, 20, 40, 90))
LINE_COUNT_WEIGHTS = (
    *(5840, 1900, 850, 490, 280, 200, 130, 80, 70, 45, 27, 20),  # 1 to 12 lines, in 1/10,000
    *(6,) * 8,  # 13 to 20
    *(1,) * 15,  # 21 to 35
)
SHARED_TRANSACTIONS = 0.05263  # transactions with lines of two or more customers: 1,319 of 25,061
THIRD_CUSTOMER_LINES, THIRD_CUSTOMER_SHARE = 3, 0.2  # a fifth of those long enough: 193 of 1,319 in all

# --- Lines ------------------------------------------------------------------------------------------------
HOME_BASKET_SHARES = (0.71, 0.44, 0.25, 0.13, 0.08)  # by line count; beyond five lines there is none
HOME_MONTH_FACTORS = (1.2, 1.1, 0.9, 0.85, 0.75, 0.85, 0.75, 0.65, 0.95, 1.15, 1.4, 1.4)  # the gift season
HOME_LINE_SHARE = 0.9  # of the further lines of a home basket
QUANTITY_KNOTS = (0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)
# (price up to, cents; quantity at the knots): the cheaper, the heavier the tail.
QUANTITIES = (
    (500, (1, 2.2, 5, 10, 25, 50, 130, 450, 901)),
    (2_000, (1, 1, 1.8, 2.1, 4, 8, 30, 160, 801)),
    (10_000, (1, 1, 1.8, 2.1, 3, 4, 8, 30, 101)),
    (100_000, (1, 1, 1.8, 2.1, 2.6, 3.2, 4, 5, 9)),
)
COUPON_STATUSES = ("Clicked", "Used", "Not Used")
COUPON_WEIGHTS = ((53, 32, 15), (35, 50, 15))  # on an ordinary and on a return visit; together 51, 34, 15
WINTER_MONTHS = (0, 1, 2, 10, 11)  # the standard charge is 6.50 then, else 6.00
WINTER_CENTS, STANDARD_CENTS = 650, 600
# Cents of the fixed charges; weights of free, standard, the other fixed ones, and bulky.
CHARGE_WEIGHTS = ((0, 875, 1_250, 1_299, 1_999), (60, 8_500, 100, 100, 450, 200, 590))
BULKY_CENTS: Quantiles = ((0, 0.5, 0.9, 0.99, 1), (1_300, 2_400, 6_000, 20_000, 52_000))
BULKY_UNITS = 50  # from here on the larger of two charges is taken

# --- Coupons and spend ------------------------------------------------------------------------------------
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DISCOUNT_PERCENTS = (10, 20, 30)  # rotating by month
OFFLINE_STEP_USD = 500  # one level a week
OFFLINE_LEVEL_WEIGHTS = (2, 4, 4, 12, 19, 25, 17, 10, 4, 2)  # 500 to 5,000
ONLINE_CENTS: Quantiles = (
    (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1),
    (32_000, 66_000, 122_000, 182_000, 235_000, 320_000, 360_000),
)
SEASON_FACTORS = (*(1.0,) * 10, 1.2, 1.25)  # of both kinds of spend, capped for the offline one

ROWS_PER_BATCH = 65_536  # 1M lines as text at once would take 200 MB
DRAWN_PERCENT = 40  # of the time is over when all lines are drawn: measured at scale 20


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
    `scale ** 0.65`, the days are always those of 2019. Blocks: some 7 s for each million lines.

    Raises
    ------
    ValueError
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
        msg = f"scale must be a number above 0, not {scale}; take 1 for the real data's size, 0.1 for a tenth"
        raise ValueError(msg)
    if seed < 0:
        msg = f"seed must be 0 or more, not {seed}; take any whole number from 0 on"
        raise ValueError(msg)


def _make_directory(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        msg = f"{out} is, or lies in, a file; name a folder for the CSV files, or remove that file first"
        raise ValueError(msg) from error


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
    is_bulk = np.array([b.is_bulk for b in BEHAVIOURS])[bought.behaviour[of_line]]
    quantity = _quantities(rng, price=price, is_bulk=is_bulk)
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


def _quantities(rng: np.random.Generator, *, price: Ints, is_bulk: NDArray[np.bool_]) -> Ints:
    place = _larger_where(rng, is_bulk)
    band = np.searchsorted([limit for limit, _ in QUANTITIES], price)
    quantity = np.empty(price.size, dtype=np.int64)
    for position, (_, values) in enumerate(QUANTITIES):
        members = np.flatnonzero(band == position)
        quantity[members] = np.floor(np.interp(place[members], QUANTITY_KNOTS, values))
    return quantity


def _larger_where(rng: np.random.Generator, condition: NDArray[np.bool_]) -> Floats:
    """Uniform numbers, and the larger of two where the condition holds."""
    place = rng.random(condition.size)
    return np.where(condition, np.maximum(place, rng.random(condition.size)), place)


def _delivery_charges(rng: np.random.Generator, *, units: Ints, month: Ints) -> Ints:
    """Cents by transaction."""
    (free, *others), weights = CHARGE_WEIGHTS
    edges = np.cumsum(weights)
    kind = np.searchsorted(edges, np.floor(_larger_where(rng, units >= BULKY_UNITS) * edges[-1]), side="right")
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
        _write(table, out / name, count=count)
    return tuple(GeneratedFile(path=out / name, rows=table.num_rows) for name, table in tables.items())


def _write(table: pa.Table, path: Path, *, count: Callable[[int], None]) -> None:
    """Nothing; the file appears at `path` as a whole or not at all."""
    # The name keeps it from a folder watcher that looks for *.csv, and apart from that of another process.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    options = csv.WriteOptions(quoting_style="none", quoting_header="none")
    schema = pa.schema([(f.name, getattr(f.type, "value_type", f.type)) for f in table.schema])
    try:
        with csv.CSVWriter(part, schema, write_options=options) as writer:
            for batch in table.to_batches(max_chunksize=ROWS_PER_BATCH):
                writer.write_batch(_decoded(batch, schema))
                count(batch.num_rows)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _decoded(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    columns = [column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
