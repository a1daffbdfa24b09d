"""A grammar of captions that speak of age, with what each must lose and keep.

It shares no word list with the filter: what may not survive is listed here, by hand, and for the
numbers by the phrase that brought them in. Numbers in age phrases never occur in what must stay.
"""

import random
import re
from dataclasses import dataclass, field

UNITS = "one two three four five six seven eight nine".split()  # noqa: SIM905
TEENS = (
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen",
    "eighteen", "nineteen",
)  # fmt: skip
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
DECADES = (
    "teens", "twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties",
    "nineties",
)  # fmt: skip


@dataclass
class Case:
    """A caption, the attributes it names, who is on it, and the numbers that may not survive."""

    text: str
    attributes: list[str] = field(default_factory=list)
    gender: str = ""
    numbers: list[str] = field(default_factory=list)


GENDER = {
    "male": re.compile(r"\b(?:man|men|male|males|he|his|gentleman|gentlemen|guy)\b", re.I),
    "female": re.compile(r"\b(?:woman|women|female|females|she|her|lady|ladies)\b", re.I),
    "": re.compile(""),
}
NOUNS = {
    "male": ("man", "gentleman", "male", "guy"),
    "female": ("woman", "lady", "female"),
    "": ("person", "individual", "subject"),
}
AGE_NOUNS = {
    "male": ("boy", "schoolboy", "lad", "grandfather", "grandpa", "great-grandfather", "little boy",
             "baby boy", "toddler boy", "teenage boy", "adult male", "senior man", "boy child"),
    "female": ("girl", "schoolgirl", "lass", "grandmother", "granny", "great-grandmother",
               "little girl", "baby girl", "teen girl", "adult woman", "senior lady",
               "infant girl", "adolescent girl"),
    "": ("baby", "infant", "newborn", "toddler", "preschooler", "child", "kid", "tween", "teen",
         "teenager", "adolescent", "youth", "youngster", "adult", "young adult", "grown-up",
         "senior", "senior citizen", "elder", "retiree", "pensioner", "octogenarian", "centenarian",
         "septuagenarian", "minor", "millennial", "baby boomer", "boomer", "first-grader",
         "juvenile", "grandparent", "kindergartner", "old-timer", "pre-teen", "preteen",
         "thirtysomething", "thirty-something", "zoomer", "tot"),
}  # fmt: skip
PLURALS = (
    "babies", "infants", "newborns", "toddlers", "preschoolers", "children", "kids", "tweens",
    "teens", "teenagers", "adolescents", "youths", "adults", "young adults", "grown-ups", "seniors",
    "elders", "elderly people", "retirees", "pensioners", "octogenarians", "minors", "millennials",
    "boys", "girls", "boys and girls", "grandparents", "great-grandmothers", "schoolchildren",
    "twenty-somethings", "five-year-olds", "senior citizens",
)  # fmt: skip
ADJECTIVES = (
    "young", "younger", "youngish", "old", "older", "oldish", "very old", "quite young", "elderly",
    "middle-aged", "middle aged", "teenage", "teenaged", "adolescent", "youthful", "childlike",
    "baby-faced", "ageless", "aged", "aging", "ageing", "geriatric", "mature", "senior", "adult",
    "underage", "young-looking", "older-looking", "youthful-looking", "retired", "newborn",
    "preschool", "prepubescent", "millennial", "Gen Z", "Gen-X", "grown", "young-at-heart",
    "relatively young", "fairly old", "rather elderly", "slightly older", "visibly aged",
    "over-the-hill", "juvenile", "full-grown", "not so young", "school-aged", "college-age",
)  # fmt: skip
IDIOMS = (
    "past {his} prime", "in {his} prime", "in the prime of life", "of advanced years",
    "of tender years", "of advanced age", "in old age", "in middle age", "in {his} youth",
    "in {his} golden years", "in {his} twilight years", "in {his} later years",
    "in early childhood",
    "in {his} teenage years", "in {his} adolescence", "of retirement age", "of a certain age",
    "of indeterminate age", "in {his} sixth decade", "in the autumn of {his} life",
    "advanced in years", "getting on in years", "of school age", "in {his} early adulthood",
    "in late middle age", "of an older generation", "in the later stages of life", "born in 1962",
)  # fmt: skip
STATES = (
    "young", "elderly", "old", "very young", "quite old", "middle-aged", "youthful", "mature",
    "older", "ageless", "wise beyond {his} years", "young at heart", "over the hill",
    "long in the tooth", "a teenager", "an adult", "a child", "a senior", "a toddler", "a minor",
    "an old {noun}", "a young {noun}", "a middle-aged {noun}", "younger than {his} years",
    "older than {his} years", "no spring chicken", "of advanced years", "past {his} prime",
    "a thirty-something", "an octogenarian", "well preserved for {his} age", "of legal age",
)  # fmt: skip
LOOKS = (
    "short brown hair", "long blond hair", "grey hair", "white hair", "curly red hair", "dark hair",
    "a receding hairline", "a bald head", "a beard", "a trimmed beard", "a moustache", "a goatee",
    "glasses", "dark glasses", "round spectacles", "an old-fashioned hat", "baby blue eyes",
    "green eyes", "two earrings", "a nose ring", "freckles", "wrinkles", "dimples", "a wide smile",
    "a number 7 shirt", "three-day-old stubble", "a minor scar", "a blue scarf",
    "1980s style glasses",
    "an old-school cap", "full lips", "bushy eyebrows", "a mole", "an earring and a necklace",
    "a tattoo on his neck", "dark skin", "a single braid", "a 5 o'clock shadow", "3 piercings",
)  # fmt: skip
ACTIONS = (
    "smiling", "looking at the camera", "wearing a red scarf", "standing in front of a brick wall",
    "laughing", "holding a cup", "facing left", "posing outdoors",
)  # fmt: skip
CLOSERS = (
    "The background is blurred.", "The lighting is soft.", "{He} is smiling.",
    "{He} wears a striped tie.", "Three people stand behind.", "The photo is in black and white.",
    "{He} has a mole on the left cheek.", "The expression is calm and confident.",
)  # fmt: skip


class Grammar:
    """Draws captions; the same seed draws the same ones."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.numbers: list[str] = []
        self.gender = ""
        self.his, self.he = "their", "they"

    def pick(self, options: tuple[str, ...]) -> str:
        return self.rng.choice(options)

    def number(self, low: int = 10, high: int = 99) -> str:
        value = self.rng.randint(low, high)
        if self.rng.random() < 0.6:
            word = str(value)
        elif value < 10:
            word = UNITS[value - 1]
        elif value < 20:
            word = TEENS[value - 10]
        else:
            joint = self.pick(("-", "-", " "))
            word = TENS[value // 10 - 2] + (joint + UNITS[value % 10 - 1] if value % 10 else "")
        self.numbers += [part for part in re.split(r"[ -]", word) if part not in ("two", "three")]
        return word

    def decade(self) -> str:
        part = self.pick(
            ("", "", "early ", "mid ", "mid-", "late ", "very early ", "early to mid ",
             "mid-to-late ",
             "mid to late ", "early or mid-", "late-")
        )  # fmt: skip
        name = self.pick((*DECADES, *(f"{tens}0s" for tens in range(2, 9)), "40's"))
        return part + name

    def about(self) -> str:
        return self.pick(
            ("", "", "", "about ", "around ", "approximately ", "roughly ", "probably ", "maybe ",
             "perhaps ", "almost ", "nearly ", "over ", "at least ", "no more than ", "just over ",
             "well over ", "somewhere around ", "possibly ", "~", "close to ", "under ")
        )  # fmt: skip

    def span(self) -> str:
        joint = self.pick(("-", " to ", " or ", "–", " - "))
        return f"{self.number()}{joint}{self.number()}"

    def years(self) -> str:
        """An age as a predicate or in brackets: "about 34 years old"."""
        number = self.span() if self.rng.random() < 0.3 else self.number()
        return self.rng.choice((
            lambda: f"{self.about()}{number} years old",
            lambda: f"{self.about()}{number} years of age",
            lambda: f"between {self.number()} and {self.number()} years of age",
            lambda: f"between {self.number()} and {self.number()}",
            lambda: f"{self.about()}{number}",
            lambda: f"{self.number(20, 89)}ish" if self.rng.random() < 0.5 else "fortyish",
            lambda: f"in {self.his} {self.decade()}",
            lambda: f"in {self.his} {self.decade()} or {self.decade()}",
            lambda: f"somewhere in {self.his} {self.decade()}",
            lambda: f"{self.pick(('nearing', 'pushing', 'approaching', 'past'))} {self.number()}",
            lambda: f"aged {self.about()}{number}",
            lambda: f"{self.number(18, 65)}+",
            lambda: f"{self.number()} yrs old",
            lambda: f"{self.rng.randint(10, 99)} y/o",
            lambda: f"{self.number(4, 11)} months old",
            lambda: f"{self.number()} or so",
            lambda: f"anywhere from {self.number()} to {self.number()} years old",
        ))()  # fmt: skip

    def adjective(self) -> str:
        number = self.number()
        return self.rng.choice((
            lambda: self.pick(ADJECTIVES),
            lambda: self.pick(ADJECTIVES),
            lambda: self.pick(ADJECTIVES),
            lambda: f"{number}-year-old",
            lambda: f"{number}-yr-old",
            lambda: f"{number} year old",
            lambda: f"{self.rng.randint(10, 99)}yo",
            lambda: f"{self.number(4, 9)}-month-old",
            lambda: self.pick(("weeks-old", "months-old", "decades-old")),
            lambda: f"{self.number(20, 29)}- to {self.number(30, 39)}-year-old",
            lambda: f"{self.rng.randint(2, 9)}0-something",
            lambda: f"{self.pick(TENS)}-something",
            lambda: f"{self.pick(TENS)}something",
            lambda: f"mid-{self.pick(DECADES[1:])}",
            lambda: f"{self.pick(TENS)}-odd-year-old",
        ))()  # fmt: skip

    def behind(self) -> str:
        """What stands behind a noun: " aged 34", ", who is old,"."""
        return self.rng.choice((
            lambda: f", {self.years()},",
            lambda: f" ({self.years()})",
            lambda: f" ({self.rng.randint(10, 99)})",
            lambda: f", {self.number()},",
            lambda: f" aged {self.about()}{self.number()}",
            lambda: f", age {self.number()},",
            lambda: f" at the age of {self.number()}",
            lambda: f" of {self.about()}{self.number()} years",
            lambda: f" of {self.pick(('about', 'around', 'nearly'))} {self.number()}",
            lambda: f" in {self.his} {self.decade()}",
            lambda: f" {self.pick(('over', 'under', 'nearing', 'pushing', 'approaching'))} "
                    f"{self.number()}",
            lambda: f", {self.pick(('possibly', 'probably', 'likely', 'perhaps'))} {self.years()},",
            lambda: f" who {self.link()} {self.years()}",
            lambda: f", who {self.link()} {self.state()},",
            lambda: f", {self.pick(('appearing', 'seeming', 'looking'))} to be {self.years()},",
            lambda: f" {self.idiom()}",
            lambda: f", {self.idiom()},",
            lambda: f", {self.number()} years young,",
        ))()  # fmt: skip

    def idiom(self) -> str:
        return self.pick(IDIOMS).format(his=self.his)

    def state(self) -> str:
        noun = self.pick(NOUNS[self.gender])
        return self.pick(STATES).format(his=self.his, noun=noun)

    def link(self) -> str:
        verb = self.pick(
            ("is", "appears to be", "seems to be", "looks to be", "is likely", "may be", "could be",
             "is probably", "must be", "appears", "might well be", "is estimated to be")
        )  # fmt: skip
        if self.he == "they":
            verb = verb.replace("is", "are").replace("appears", "appear").replace("seems", "seem")
            verb = verb.replace("looks", "look")
        return verb

    def who(self) -> str:
        """A noun with its age, without an article."""
        kind = self.rng.random()
        if kind < 0.35:
            return f"{self.adjective()} {self.pick(NOUNS[self.gender])}"
        if kind < 0.5:
            return self.pick(AGE_NOUNS[self.gender])
        if kind < 0.6:
            return f"{self.adjective()} {self.pick(AGE_NOUNS[self.gender])}"
        if kind < 0.7:
            return f"{self.adjective()}, {self.adjective()} {self.pick(NOUNS[self.gender])}"
        if kind < 0.9:
            return f"{self.pick(NOUNS[self.gender])}{self.behind()}"
        return f"{self.adjective()} {self.pick(NOUNS[self.gender])}{self.behind()}"

    def case(self) -> Case:
        """Draw one caption."""
        self.numbers = []
        self.gender = self.pick(("male", "female", ""))
        self.his = {"male": "his", "female": "her", "": "their"}[self.gender]
        self.he = {"male": "he", "female": "she", "": "they"}[self.gender]
        first, second = self.rng.sample(LOOKS, 2)
        text, attributes = self.sentence(first, second)
        gender = self.gender if GENDER[self.gender].search(text) or "boy" in text else ""
        if self.rng.random() < 0.5:
            text += " " + self.about_age()
        if self.rng.random() < 0.4:
            text += " " + self.closer()
        if self.rng.random() < 0.15:
            text += f" Behind them are {self.pick(PLURALS)}."
        return self.disguise(Case(_one_sign(text), attributes, gender, self.numbers))

    def closer(self) -> str:
        has = {"They is": "They are", "They has": "They have", "They wears": "They wear"}
        text = self.pick(CLOSERS).format(He=self.he.capitalize())
        for wrong, right in has.items():
            text = text.replace(wrong, right)
        return text

    def sentence(self, first: str, second: str) -> tuple[str, list[str]]:
        """The main sentence, and what it says besides the age."""
        he, his = self.he.capitalize(), self.his
        has, wears = ("have", "are") if self.he == "they" else ("has", "is")
        who, noun = self.who(), self.pick(NOUNS[self.gender])
        action = self.pick(ACTIONS)
        both = [first, second]
        return self.rng.choice((
            lambda: (f"{_an(who)} with {first}.", [first]),
            lambda: (f"{_an(who)} with {first} and {second}, {action}.", [*both, action]),
            lambda: (f"{_an(who)} {action}, with {first}.", [first, action]),
            lambda: (f"The image shows {_an(who, False)} with {first} and {second}.", both),
            lambda: (f"The image depicts {_an(who, False)} with {first}. {he} {wears} {action}.",
                     [first, action]),
            lambda: (f"A close-up portrait of {_an(who, False)} with {first}.", [first]),
            lambda: (f"This is a photo of {_an(who, False)} {action}.", [action]),
            lambda: (f"The {noun} {self.link_for(noun)} {self.state()}, with {first}.", [first]),
            lambda: (f"The {noun} {self.link_for(noun)} {self.years()}, with {first}.", [first]),
            lambda: (f"The {noun} {self.link_for(noun)} {self.years()} and has {first}.", [first]),
            lambda: (f"{he} {self.link()} {self.years()} and {has} {first}.", [first]),
            lambda: (f"{self.opening()}, the {noun} has {first} and {second}.", both),
            lambda: (f"The {noun} has {first} and {second}, suggesting that {self.he} "
                     f"{self.link()} {self.years()}.", both),
            lambda: (f"The {noun} has {first}, which suggests that {self.he} {self.link()} "
                     f"{self.state()}.", [first]),
            lambda: (f"{he} {has} {_an(self.pick(('youthful', 'mature', 'childlike')), False)} "
                     f"appearance, {first} and {second}.", both),
            lambda: (f"Portrait of {_an(who, False)}; {first}; {second}.", both),
            lambda: (f"Age: {self.years_field()}, Hair: {first}.", [first]),
            lambda: (f"The {self.pick(('oldest', 'youngest', 'eldest', 'older'))} {noun} "
                     f"has {first}.", [first]),
            lambda: (f"A group of {self.pick(PLURALS)} with {first}.", [first]),
            lambda: (f"Two {self.pick(PLURALS)} and {_an(who, False)} with {first}.", [first]),
            lambda: (f"{_an(who)} and {_an(self.who(), False)}, both with {first}.", [first]),
            lambda: (f"Despite {his} age, {self.he} {has} {first}.", [first]),
            lambda: (f"{_an(noun)} with {first} who {self.link_for(noun)} {self.years()}.",
                     [first]),
            lambda: (f"{_an(noun)} with {first}, {self.years()}.", [first]),
        ))()  # fmt: skip

    def link_for(self, noun: str) -> str:
        he, self.he = self.he, "it"
        verb = self.link()
        self.he = he
        return verb

    def years_field(self) -> str:
        return self.rng.choice((
            lambda: self.number(), lambda: self.span(), lambda: f"mid-{self.rng.randint(2, 8)}0s",
            lambda: self.decade(), lambda: f"{self.number()} years", lambda: self.pick(
                ("young adult", "adult", "middle-aged", "elderly", "child", "teen")),
        ))()  # fmt: skip

    def opening(self) -> str:
        return self.rng.choice((
            lambda: f"In {self.his} {self.decade()}",
            lambda: f"Aged {self.number()}",
            lambda: f"At {self.number()}",
            lambda: f"At the age of {self.number()}",
            lambda: f"{self.number().capitalize()} years old",
            lambda: "No longer young",
            lambda: f"Well into {self.his} {self.decade()}",
            lambda: f"At {self.his} advanced age",
            lambda: f"{self.idiom().capitalize()}",
        ))()  # fmt: skip

    def about_age(self) -> str:
        """A sentence that says nothing but an age."""
        he, his = self.he.capitalize(), self.his
        return self.rng.choice((
            lambda: f"{he} {self.link()} {self.years()}.",
            lambda: f"{he} {self.link()} {self.state()}.",
            lambda: f"{his.capitalize()} age is {self.about()}{self.number()}.",
            lambda: f"{his.capitalize()} age is hard to tell.",
            lambda: f"I would guess that {self.he} {self.link()} {self.years()}.",
            lambda: f"{he} looks good for {his} age.",
            lambda: f"{he} appears younger than {his} actual age.",
            lambda: f"{he} just turned {self.number()}.",
            lambda: f"{he} was born in 19{self.rng.randint(30, 99)}.",
            lambda: f"Estimated age: {self.years_field()}.",
        ))()  # fmt: skip

    def disguise(self, case: Case) -> Case:
        """Write a caption as sloppily as models and people do."""
        way, text = self.rng.random(), case.text
        if way < 0.08:
            text = text.upper()
        elif way < 0.16:
            text = text.lower()
        elif way < 0.24:
            text = text.replace("-", "‑")
        elif way < 0.32:
            text = text.replace("'", "’").replace("-", "–")
        elif way < 0.36:
            text = text.replace(", ", ",")
        elif way < 0.40:
            text = text.replace(". ", ".\n")
        elif way < 0.43:
            text = text.replace(" ", "  ")
        elif way < 0.46:
            text = text.replace(" years", "\N{NO-BREAK SPACE}years")
        case.text = text
        return case


def _an(words: str, capital: bool = True) -> str:
    vowel = re.match(r"(?:[aeiou](?!ne\b|ni)|8|11\b|18\b|80|hour)", words, re.I) is not None
    article = "an" if vowel else "a"
    return f"{article.capitalize() if capital else article} {words}"


def _one_sign(text: str) -> str:
    return re.sub(r",+(?=[,.;])", "", text)


def plain(text: str) -> str:
    """Fold what `disguise` may have done, for comparing."""
    for sign, usual in (("‑", "-"), ("–", "-"), ("’", "'"), ("\N{NO-BREAK SPACE}", " ")):
        text = text.replace(sign, usual)
    return " ".join(re.sub(r"\s*,\s*", ", ", text).lower().split())
