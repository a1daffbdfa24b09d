"""The words of age, and the words around them, each with a one-letter tag.

`age_words` turns a sentence into a string of tags, one per token, and finds ages as regular
expressions over that string. The letters:

    numbers   d digits   u one..nine   e ten..nineteen   t twenty..ninety   h hundred
              # a whole number   D thirties, 30s   E -ish, -something, "or older"   r few, several
    age       X adjective ("young")   N noun ("toddler")   Z either ("teen")   O old   U olds
              A age   G aged   Y years   M months, weeks, days   R childhood, old age
              P early, mid, late   z "34-year-old"   Q a phrase ("in his forties")
    around    B about, very, nearly   L is, looks   j looking, being   V wears   i has   m may
              c suggests   C suggesting   S he   K his   T a   k the   s this   W who, when
              H there   I in   F of   x with   a at, for   y like, as   & and   o or   2 to
              < between   > than   b little   v appearance, group   n number, size
              f face, coat (nouns that stand behind nouns)   p man, person
              g -ing   l -ly   w any other word
    signs     . , ; : ( ) - — / ' as they are
"""

_WORDS = {
    "u": "one two three four five six seven eight nine",
    "e": "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen",
    "t": "twenty thirty forty fourty fifty sixty seventy eighty ninety",
    "h": "hundred",
    "D": (
        "teens twenties thirties forties fourties fifties sixties seventies eighties nineties"
        " twentys thirtys fortys fourtys fiftys sixtys seventys eightys ninetys"
    ),
    "E": "ish something somethings plus odd",
    "r": "few several many couple dozen",
    "Y": "year years yr yrs decade decades",
    "M": "month months mo mos week weeks wk wks day days hour hours",
    "O": "old",
    "U": "olds",
    "A": "age ages generation generations birthdate agedness",
    "G": "aged ageing aging",
    "R": (
        "childhood infancy babyhood toddlerhood adolescence adulthood boyhood girlhood"
        " youngness youthfulness maturity immaturity puberty midlife senescence senility dotage"
        " retirement teenhood elderhood seniority manhood womanhood teendom minority oldness"
        " grandparenthood grandmotherhood"
    ),
    "P": "early earlier mid middle late later latter upper lower mids",
    "X": (
        "young younger youngest older oldest elderly eldest youthful youthfully youngish oldish"
        " ageless unaged underage underaged overage overaged teenaged teenage preteenage"
        " mature maturing matured immature retired newborn childlike childish"
        " childishly boyish boyishly girlish girlishly girly babyish kiddie kiddy babyfaced"
        " matronly grandmotherly grandfatherly grandparental prepubescent pubescent prepubertal"
        " pubertal postpubescent menopausal postmenopausal perimenopausal geriatric senescent"
        " senile ancient wizened venerable superannuated hoary decrepit doddering"
        " neonatal infantile adultlike middleaged agelessly septuagenary"
        " sexagenary octogenary centennial yearold yearsold generational multigenerational"
        " schoolaged eldery elderley elderlly middleage yougn yong yung"
        " preschool adolescently juvenescent"
    ),
    "Z": (
        "senior junior adult teen preteen tween tweenage adolescent infant baby toddler child kid"
        " juvenile elder newborn geriatric millennial boomer zoomer preschooler youth tot"
        " octogenarian nonagenarian centenarian septuagenarian sexagenarian quinquagenarian"
        " quadragenarian tricenarian vicenarian denarian supercentenarian"
        " thirtysomething twentysomething fortysomething fiftysomething sixtysomething"
        " seventysomething eightysomething ninetysomething twentyish thirtyish fortyish fiftyish"
        " sixtyish seventyish eightyish ninetyish"
    ),
    "B": (
        "about around roughly approximately approx circa probably likely perhaps maybe possibly"
        " presumably seemingly somewhere anywhere apparently clearly obviously evidently definitely"
        " certainly quite rather fairly very relatively comparatively reasonably extremely really"
        " truly visibly noticeably distinctly slightly somewhat still just nearly almost over under"
        " only estimated guessed below above beyond past nearing approaching entering pushing"
        " turning turned turns reaching hitting touching barely well too so pretty more less most"
        " much far now already not no neither currently generally typically"
        " significantly considerably decidedly deceptively surprisingly remarkably advanced"
        " estimate guess guessing say ~ ≈ + < > ≥ ≤ either both exactly precisely easily safely"
        " perpetually eternally strikingly unmistakably undeniably forever"
        " comfortably fully freshly newly recently simply merely even nigh say"
    ),
    "L": (
        "is are was were be been am isn't aren't wasn't weren't appear appears appeared seem seems"
        " seemed look looks looked remain remains feels feel sounds act acts"
    ),
    "j": "appearing seeming looking being acting feeling",
    "V": (
        "wears wear wore smiles smile holds hold stands sits sports gazes stares faces"
        " features poses laughs grins frowns shows show displays display carries exudes"
        " possesses"
    ),
    "i": "has have had hasn't haven't hadn't",
    "m": (
        "may might could must would should can will cannot used"
        " does do did doesn't don't didn't can't"
        " couldn't won't wouldn't shouldn't mightn't mustn't 'd 'll"
    ),
    "c": (
        "suggests suggest suggested indicates indicate indicated implies imply implied hints hint"
        " reveals reveal betrays betray denotes denote signifies signify conveys convey reflects"
        " reflect means"
    ),
    "C": (
        "suggesting indicating implying hinting revealing betraying denoting signifying conveying"
        " reflecting indicative suggestive reminiscent typical characteristic befitting"
    ),
    "S": "he she they it we i you",
    "K": "his her their its my your our whose",
    "T": "a an",
    "k": "the",
    "s": "this these those",
    "W": "who that which whom when while",
    "H": "there",
    "I": "in into within",
    "F": "of",
    "x": "with",
    "a": (
        "at for by despite given from on considering due through during since"
        " regardless judging based before after against near behind beside without"
    ),
    "y": "like as if though resembling resembles",
    "&": "and but yet &",
    "o": "or nor",
    "2": "to until till",
    "<": "between",
    ">": "than",
    "b": "little small tiny wee big",
    "v": (
        "appearance vibe vibes air aura glow energy demeanor demeanour group groups"
        " range bracket category demographic stage phase spirit charm beauty visage vigor vigour"
        " radiance face features countenance physique impression quality essence presence"
    ),
    "f": (
        "cheeks skin hair eyes smile clothes clothing outfit dress shirt hat cap coat band bands"
        " model models actor actress star idol seat chair stroller carriage bottle blanket toy toys"
        " teeth tooth fat bump carrier room bed clock collar glasses cardigan sweater scout"
        " scouts shorts gloves manager officer executive member citizen artist singer player"
        " athlete soldier fashion style haircut hairstyle couple family parent parents sister"
        " brother siblings mother father bride groom student students leader photo photograph"
        " portrait picture professional worker population friend friends crowd audience viewer"
    ),
    "p": (
        "man woman men women person people male female males females lady ladies gentleman"
        " gentlemen guy guys fellow individual individuals human humans subject figure dude chap"
        " persons folk folks couple brother sister brothers sisters sibling siblings gal gals"
    ),
    "n": "number no numbers size sizes reads says reading saying page jersey nr",
}

NEUTRAL = {
    "person": (
        "senior junior adult teen preteen tween adolescent infant baby toddler child kid juvenile"
        " elder newborn geriatric millennial boomer zoomer preschooler youth tot teenager elderly"
        " todler teeneger"
        " preadolescent tweenager teenybopper oldster pensioner retiree youngster youngling"
        " grownup kiddo kiddie bairn tyke tike rugrat nipper neonate nursling suckling stripling"
        " whippersnapper urchin grandparent grandchild schoolkid"
        " schoolchild kindergartner kindergartener grader schooler gradeschooler highschooler"
        " middleschooler ager oap postmillennial babe papoose"
        " bambino geezer codger fogey fogy dotard bub sprog youngun whelp moppet"
        " octogenarian nonagenarian centenarian septuagenarian sexagenarian quinquagenarian"
        " quadragenarian tricenarian vicenarian denarian supercentenarian thirtysomething"
        " twentysomething fortysomething fiftysomething sixtysomething seventysomething"
        " eightysomething ninetysomething"
    ),
    "woman": (
        "girl schoolgirl lass lassie maiden granddaughter babygirl girlie stepgranddaughter"
        " grandmother grandma granny grannie gran nana nan"
        " grandmom grandmama grandmamma memaw matriarch crone hag spinster dowager granma"
    ),
    "man": (
        "boy schoolboy lad laddie grandson babyboy boyo stepgrandson"
        " grandfather grandpa grandad granddad grandpop grandpapa gramps"
        " granddaddy papaw patriarch greybeard graybeard"
    ),
    "student": "undergraduate undergrad freshman sophomore collegian",
}
_PLURALS = {
    "person": "people",
    "woman": "women", "man": "men", "student": "students",
}  # fmt: skip
_IRREGULAR = {
    "baby": "babies", "child": "children", "grandchild": "grandchildren", "elderly": "",
    "schoolchild": "schoolchildren",
    "freshman": "freshmen", "granny": "grannies", "fogy": "fogies",
}  # fmt: skip


def _nouns() -> tuple[dict[str, str], set[str]]:
    """What stands in for each noun of age; and those that are plurals."""
    stand_in, plurals = {}, set()
    for neutral, words in NEUTRAL.items():
        for word in words.split():
            stand_in[word] = neutral
            plural = _IRREGULAR.get(word, word + "s")
            if plural:
                stand_in[plural] = _PLURALS[neutral]
                plurals.add(plural)
    return stand_in, plurals


STAND_IN, PLURALS = _nouns()
"""What stands in for a noun of age; those of them that are plurals."""

TAGS: dict[str, str] = dict.fromkeys(STAND_IN, "N")
TAGS.update((word, tag) for tag, words in _WORDS.items() for word in words.split())
TAGS.update((sign, sign) for sign in ".,;:()-/'")
TAGS.update(
    {
        "!": ".",
        "?": ".",
        "\u2014": ",",
        "\u2013": ",",
        "=": ":",
        "_": "-",
        "'s": "'",
        "'": "'",
        "\u2026": ".",
        "'re": "L",
        "'m": "L",
    }
)
