"""The made-up shop: what it sells, who buys there, and when; the numbers that `workers.generate` draws from.

Each number is a round one, set so that the generated year has the marginals of the real one. Where a comment gives a
share, it was measured on the real data.
"""

from __future__ import annotations

from datetime import date
from typing import NamedTuple

Quantiles = tuple[tuple[float, ...], tuple[float, ...]]
"""Places from 0 to 1, rising, and the values there; what lies between is a straight line."""


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


# Sizes at scale 1: the real data's
CUSTOMERS, TRANSACTIONS, LINES = 1_468, 25_061, 52_924
FIRST_CUSTOMER_ID, CUSTOMER_ID_SPAN = 12_346, 5_938  # a quarter of the ids is in use
FIRST_TRANSACTION_ID, TRANSACTION_ID_SPAN = 16_679, 31_819  # four fifths are in use: gaps of 1 to 8
CUSTOMER_GROWTH = 0.65  # customers grow as scale**0.65: 10,290 at scale 20; they also buy more often
FEWEST_CUSTOMERS = 5
YEAR_START, DAYS = date(2019, 1, 1), 365

# fmt: off
# The catalogue: measured SKUs, descriptions, line shares and price quantiles, rounded
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

# Customers: shares of behaviours chosen so that purchase days per customer come out as measured
END_OF_AUGUST, END_OF_YEAR = 242, 364
BEHAVIOURS = (
    Behaviour("frequent big", 6, (4, 5, 6, 7, 8, 9, 9, 12, 26), 10, END_OF_YEAR),
    Behaviour("loyal", 18, (3, 3, 4, 4, 5), 8, END_OF_YEAR),
    Behaviour("rare big spender", 10, (1, 1, 1, 2), 16, END_OF_YEAR, home_percent=140),
    Behaviour("occasional", 36, (1, 1, 1, 2), 7, END_OF_YEAR, home_percent=90),
    Behaviour("lapsed", 30, (1, 1, 2, 2), 9, END_OF_AUGUST),
)
DAY_FILLERS = 0  # the behaviour that buys on the days on which nobody else did
GENDERS = (("F", "M"), (64, 36))
LOCATIONS = (("California", "Chicago", "New York", "New Jersey", "Washington DC"), (32, 31, 22, 10, 5))
TENURE_MONTHS = (2, 50)  # uniform

# Visits and transactions
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

# Lines
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

# Coupons and spend
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DISCOUNT_PERCENTS = (10, 20, 30)  # rotating by month
OFFLINE_STEP_USD = 500  # one level a week
OFFLINE_LEVEL_WEIGHTS = (2, 4, 4, 12, 19, 25, 17, 10, 4, 2)  # 500 to 5,000
ONLINE_CENTS: Quantiles = (
    (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1),
    (32_000, 66_000, 122_000, 182_000, 235_000, 320_000, 360_000),
)
SEASON_FACTORS = (*(1.0,) * 10, 1.2, 1.25)  # of both kinds of spend, capped for the offline one
