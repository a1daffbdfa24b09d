"""Taking words of age out of captions."""

import pytest

from agetf_pipeline.captions.age_idioms import IDIOM_WORDS
from agetf_pipeline.captions.age_phrases import may_mention_age
from agetf_pipeline.captions.age_words import find_age_words, mentions_age, remove_age_words

MENDED = (
    (
        "A young man with short brown hair.",
        "A man with short brown hair.",
    ),
    (
        "An elderly woman in her late seventies with grey hair.",
        "A woman with grey hair.",
    ),
    (
        "a 34-year-old man with a beard.",
        "a man with a beard.",
    ),
    (
        "A teenage girl with long hair.",
        "A woman with long hair.",
    ),
    (
        "A baby boy smiling.",
        "A man smiling.",
    ),
    (
        "A toddler.",
        "A person.",
    ),
    (
        "Two children with curly hair.",
        "Two people with curly hair.",
    ),
    (
        "A grandmother with curly hair.",
        "A woman with curly hair.",
    ),
    (
        "A middle-aged, bearded man.",
        "A bearded man.",
    ),
    (
        "The man is elderly and has grey hair.",
        "The man has grey hair.",
    ),
    (
        "At the age of 70, the man has grey hair.",
        "The man has grey hair.",
    ),
    (
        "A woman, possibly in her thirties, with blond hair.",
        "A woman with blond hair.",
    ),
    (
        "He looks young. He has brown hair.",
        "He has brown hair.",
    ),
    (
        "A ten-year-old.",
        "A person.",
    ),
    (
        "A young adult with red hair.",
        "A person with red hair.",
    ),
    (
        "An old man and a young woman.",
        "A man and a woman.",
    ),
    (
        (
            "The image depicts a young boy, around 5-6 years old, with short brown hair. He "
            "appears to be in his early childhood."
        ),
        "The image depicts a man with short brown hair.",
    ),
    (
        "He is between 40 and 50 years of age, with a salt-and-pepper beard.",
        "He has a salt-and-pepper beard.",
    ),
    (
        "The man, 34, has a beard.",
        "The man has a beard.",
    ),
    (
        "Portrait of a man, c. 60 years old, bald, with a white beard.",
        "Portrait of a man, bald, with a white beard.",
    ),
    (
        "A woman of about fifty with red lipstick.",
        "A woman with red lipstick.",
    ),
    (
        "He's pushing 50 but still has brown hair.",
        "He still has brown hair.",
    ),
    (
        "A grandmother and her granddaughter, both smiling.",
        "A woman and her female relative, both smiling.",
    ),
    (
        "A Gen Z woman with pink hair.",
        "A woman with pink hair.",
    ),
    (
        "A middle‑aged woman — perhaps forty–five — with short hair.",
        "A woman with short hair.",
    ),
    (
        "A 25–30-year‑old man’s face with a moustache.",
        "A man's face with a moustache.",
    ),
    (
        "A YOUNG BOY WITH GLASSES.",
        "A MAN WITH GLASSES.",
    ),
    (
        "34 y/o male, brown hair, glasses.",
        "Male, brown hair, glasses.",
    ),
    (
        "Age: mid-30s, Gender: female, Hair: black, Glasses: no",
        "Gender: female, Hair: black, Glasses: no",
    ),
    (
        "She has a youthful glow, long black hair, and earrings.",
        "She has long black hair, and earrings.",
    ),
    (
        "There are age spots on her forehead.",
        "There are spots on her forehead.",
    ),
    (
        "Her grey hair and wrinkles indicate advanced age.",
        "She has grey hair and wrinkles.",
    ),
    (
        "A college student with curly hair.",
        "A student with curly hair.",
    ),
    (
        "A high school senior with glasses.",
        "A person with glasses.",
    ),
    (
        "The elder of the two men wears glasses.",
        "The person of the two men wears glasses.",
    ),
    (
        "The man is tall, young, and handsome.",
        "The man is tall and handsome.",
    ),
    (
        "He is handsome and young, with dark hair.",
        "He is handsome, with dark hair.",
    ),
    (
        "An adorable little girl with pigtails.",
        "An adorable woman with pigtails.",
    ),
    (
        "An infant sleeps in a crib.",
        "A person sleeps in a crib.",
    ),
    (
        "A baby with baby hair and baby blue eyes.",
        "A person with baby hair and baby blue eyes.",
    ),
    (
        "A sweet sixteen party hat on a girl's head.",
        "A party hat on a woman's head.",
    ),
    (
        "A veteran actor in his sixth decade with silver hair.",
        "A veteran actor with silver hair.",
    ),
    (
        "He has aged gracefully, with silver hair and a trim beard.",
        "He has silver hair and a trim beard.",
    ),
    (
        "The woman has girlish pigtails and childlike features.",
        "The woman has pigtails.",
    ),
    (
        "The young man on the left has a beard, while the older man on the right has none.",
        "The man on the left has a beard, while the man on the right has none.",
    ),
    (
        "The elderly are sitting on a bench.",
        "The people are sitting on a bench.",
    ),
    (
        "This is a photo of a ten year old boy with short hair.",
        "This is a photo of a man with short hair.",
    ),
    (
        "Three people: a child, a teen and an adult.",
        "Three people: a person, a person and a person.",
    ),
    (
        "The man is about 6 feet tall and 40 years old.",
        "The man is about 6 feet tall.",
    ),
    (
        "Her smooth, youthful skin and long dark hair frame her face.",
        "Her smooth skin and long dark hair frame her face.",
    ),
    (
        "A hundred-year-old woman with no teeth.",
        "A woman with no teeth.",
    ),
    (
        (
            "The individual in the image is a senior citizen, likely in their 70s or 80s, with "
            "white hair and glasses."
        ),
        "The individual in the image is a person with white hair and glasses.",
    ),
    (
        "The skin shows signs of aging, such as wrinkles and fine lines.",
        "The skin shows signs such as wrinkles and fine lines.",
    ),
    (
        "Her face is wrinkled with age.",
        "Her face is wrinkled.",
    ),
    (
        "A girl of seven or eight with ribbons.",
        "A woman with ribbons.",
    ),
    (
        "A person in his or her thirties with brown hair.",
        "A person with brown hair.",
    ),
    (
        "He doesn't look a day over 40, with a full head of hair.",
        "He has a full head of hair.",
    ),
    (
        "The lady's salt-and-pepper hair betrays her years.",
        "The lady has salt-and-pepper hair.",
    ),
    (
        "A man old enough to be a grandfather, with thick glasses.",
        "A man, with thick glasses.",
    ),
    (
        "A boy too young to shave, with freckles.",
        "A man, with freckles.",
    ),
    (
        "A girl barely out of her teens with a septum ring.",
        "A woman with a septum ring.",
    ),
    (
        "She's on the cusp of adulthood, with long dark hair.",
        "She has long dark hair.",
    ),
    (
        "A woman aged b/w 30-40 with red lips.",
        "A woman with red lips.",
    ),
    (
        "M/34/brown hair.",
        "M/brown hair.",
    ),
    (
        "The subject's age: approximately 28-32. Hair: black.",
        "Hair: black.",
    ),
    (
        "**Age:** 25-30",
        "",
    ),
    (
        "With her youthful looks and long hair, she is smiling.",
        "With long hair, she is smiling.",
    ),
    (
        "His features are boyish and his hair is tousled.",
        "His hair is tousled.",
    ),
    (
        "The girl is about eight and has two braids.",
        "The woman has two braids.",
    ),
    (
        "An eight year old with two braids.",
        "A person with two braids.",
    ),
    (
        "A not-so-young man with a comb-over.",
        "A man with a comb-over.",
    ),
    (
        "A woman, no longer young, with silver hair.",
        "A woman with silver hair.",
    ),
    (
        "A man whose age is about 50 has a beard.",
        "A man has a beard.",
    ),
    (
        "A fourth-grade student with pigtails.",
        "A student with pigtails.",
    ),
    (
        "Someone in the 20-29 age group with hoop earrings.",
        "Someone with hoop earrings.",
    ),
    (
        "She was 22 when the photo was taken, with short hair.",
        "She has short hair.",
    ),
    (
        "A lady who has seen eighty summers, with thin white hair.",
        "A lady, with thin white hair.",
    ),
    (
        "A man in his 40ies with a scarf.",
        "A man with a scarf.",
    ),
    (
        "A woman in the 30-40 range with brown hair.",
        "A woman with brown hair.",
    ),
    (
        "A man estimated to be forty with a beard.",
        "A man with a beard.",
    ),
    (
        "Age (estimated): 45. Hair: brown.",
        "Hair: brown.",
    ),
    (
        "He can't be older than 25, with that patchy beard.",
        "He has that patchy beard.",
    ),
    (
        "A bearded, bald, aged man.",
        "A bearded, bald man.",
    ),
    (
        "An adult-looking teen with a beard.",
        "A person with a beard.",
    ),
    (
        "A two-and-a-half-year-old with curls.",
        "A person with curls.",
    ),
    (
        "A man in his fifth or sixth decade with a beard.",
        "A man with a beard.",
    ),
    (
        "A woman in her late teens/early twenties with bangs.",
        "A woman with bangs.",
    ),
    (
        "A 1990-born woman with bangs.",
        "A woman with bangs.",
    ),
    (
        "The hair is grey, a sign of age.",
        "The hair is grey.",
    ),
    (
        "A 65-and-over man with a hat.",
        "A man with a hat.",
    ),
    (
        "Over-60s in a park.",
        "People in a park.",
    ),
    (
        "A U-18 football player with a headband.",
        "A football player with a headband.",
    ),
    (
        "A man in a '60s suit.",
        "A man in a suit.",
    ),
    (
        "The old photo shows a man with a beard.",
        "The photo shows a man with a beard.",
    ),
    ("The woman's in her forties and wears glasses.", "The woman wears glasses."),
    ("What a cute little fellow with a bow tie!", "What a cute fellow with a bow tie!"),
    ("A man in his mid 30´s with a hat.", "A man with a hat."),
    ("A man in his thirtys with a hat.", "A man with a hat."),
    ("An eldery man with a hat.", "A man with a hat."),
    ('A "young" man with a hat.', "A man with a hat."),
    ("A young/middle-aged man with a hat.", "A man with a hat."),
    ("He is in third grade and has blue eyes.", "He has blue eyes."),
    ("He came of age in the seventies and has blue eyes.", "He has blue eyes."),
    ("She is three with blue eyes.", "She has blue eyes."),
    ("The man's 45 and wears glasses.", "The man wears glasses."),
    ("Is he 40 or 50? He has grey hair.", "He has grey hair."),
    ("He might be a bit older than thirty, and he has a beard.", "He has a beard."),
    ("A man (b. 1955) with a beard.", "A man with a beard."),
)
FREE_OF_AGE = (
    "A man with short brown hair, a beard and dark glasses, smiling.",
    "A woman with an old-fashioned hat.",
    "A man with grey hair and wrinkles.",
    "A woman with a bob, and two earrings.",
    "",
    (
        "The image shows a man with short black hair and a full beard. He is wearing round "
        "glasses and smiling at the camera."
    ),
    "A woman with long blonde hair, blue eyes and red lipstick.",
    "The person has fair skin, freckles across the nose, and light brown eyebrows.",
    "A close-up portrait of a woman with curly red hair against a plain grey background.",
    "He has grey hair, deep wrinkles around his eyes and a white moustache.",
    "The man has a bald head, a grey goatee and two earrings in his left ear.",
    "She wears an old-fashioned hat with a feather and a pearl necklace.",
    "A man with baby blue eyes and three-day-old stubble looks to the left.",
    "Three people stand in the background; one of them holds an umbrella.",
    "A man in a number 7 shirt is holding a football.",
    "A man in a jersey with the number 23 on it.",
    "A woman with a minor scar above her right eyebrow.",
    "The photo was taken from a low angle at about 45 degrees.",
    "The lighting is soft, and the background is blurred.",
    "He has a 5 o'clock shadow and a square jaw.",
    "The woman has high cheekbones, full lips, and an oval face.",
    "A man wearing 1980s style glasses and a denim jacket.",
    "She has a mole on her left cheek and a small nose ring.",
    "A portrait in three-quarter view of a man with sideburns.",
    "The image is a black-and-white photograph of a woman with a bob haircut.",
    "Both men have dark skin and closely cropped hair.",
    "His eyebrows are bushy, and his beard is neatly trimmed.",
    "The woman's hair is tied back in a ponytail with a red ribbon.",
    "There are two people in the image, a man and a woman.",
    "A mother and her daughter with the same green eyes.",
    "The person is wearing a blue t-shirt with white text on it.",
    "A man with a receding hairline and crow's feet is laughing.",
    "She looks directly at the camera with a neutral expression.",
    "The man is about 6 feet tall and wears a dark suit.",
    "A man with dreadlocks, a nose piercing and 3 rings on his hand.",
    "One of the women has her hair in a bun; the other wears it loose.",
    "The person appears to be smiling slightly, with the mouth closed.",
    "Her pupils are dilated, and her irises are hazel.",
    "A student with a backpack and headphones.",
    "An image of a man in a tuxedo at a New Year's Eve party.",
    "He seems relaxed and confident.",
    "The man is wearing a cowboy hat and a plaid shirt.",
    "A woman with hoop earrings, winged eyeliner and a leather jacket.",
    "The upper half of the image shows the sky, and the lower half shows a man's face.",
    "The man on the left is taller than the man on the right.",
    "She has shoulder-length, wavy, dark brown hair with highlights.",
    "His head is turned about 30 degrees to the right.",
    "The woman has baby hairs along her hairline and thin eyebrows.",
    "A man with a salt-and-pepper beard and a gold chain, in front of a brick wall.",
    "The image has a resolution of 128 x 128 pixels.",
    "He is in the middle of the frame, and only the upper part of his body is visible.",
    "A few strands of hair fall over her forehead.",
    "Several people are visible in the background, out of focus.",
    "A man with late-afternoon light on his face.",
    "The photo is well lit, with warm early morning light.",
    "The man has a wide, friendly smile that shows his teeth.",
    "What stands out is the bright green scarf she wears.",
    "She is looking over her shoulder, with one hand on her chin.",
    "The person's gender appears to be male, and the hair is short.",
    "A close-up of a face with smooth skin, rosy cheeks and chubby features.",
    "His expression is serious; he may be thinking.",
    "The woman wears a cap, and a pair of sunglasses rests on it.",
    "A man with a week-old beard and tousled hair.",
    "A single light source on the left casts a shadow on half of the face.",
    "The man's face is turned to the side, showing his profile.",
    "A man of medium build with olive skin.",
    "About half of the face is in shadow.",
    "There are seven candles on the cake before her.",
    "He is one of two men with a moustache.",
    "His tie has thirty small dots.",
    "The woman has 12 beads in her braid.",
)


@pytest.mark.parametrize(("raw", "clean"), MENDED)
def test_words_of_age_go_and_grammar_stays(raw: str, clean: str) -> None:
    assert remove_age_words(raw) == clean
    assert mentions_age(raw)
    assert not mentions_age(clean)


@pytest.mark.parametrize("text", FREE_OF_AGE)
def test_other_captions_are_left_alone(text: str) -> None:
    assert remove_age_words(text) == text
    assert not mentions_age(text)


@pytest.mark.parametrize(
    "text",
    [
        "She is 45.",
        "He is about forty.",
        "The man is in his forties.",
        "**Age:** 25-30",
        "He looks to be about ten.",
        "This is a 10 year-old.",
        "I would guess that she is 34.",
        "They appear to be between 20 and 30.",
        "- Age: 30s",
        "Wise beyond his years.",
    ],
)
def test_a_sentence_of_age_alone_leaves_nothing(text: str) -> None:
    assert remove_age_words(text) == ""


def test_a_sentence_that_cannot_be_mended_is_dropped() -> None:
    text = "Her age is hard to tell. She has long hair."
    assert mentions_age(text)
    assert remove_age_words(text) == "She has long hair."


def test_white_space_alone_is_tidied() -> None:
    assert remove_age_words("A man \n with  glasses. ") == "A man with glasses."


def test_what_was_found_is_told_in_order() -> None:
    text = "A young boy, around 5–6 years old. An elderly man, 81, in his prime, with two hats."
    assert find_age_words(text) == [
        "young", "boy", "around 5-6 years old", "elderly", "81", "in his prime"
    ]  # fmt: skip
    assert find_age_words("A man with two hats and a number 7 shirt.") == []


@pytest.mark.parametrize(
    "idiom",
    [
        "over the hill", "long in the tooth", "no spring chicken", "wet behind the ears",
        "wise beyond her years", "well preserved", "young at heart", "fresh-faced", "in his prime",
        "in the autumn of her life", "in the bloom of youth", "class of 1975", "born in 1962",
        "in his sixth decade", "a century old", "half a century", "one foot in the grave",
        "in diapers", "three score and ten", "eighty summers", "half her age", "newborn",
        "fifth-grade", "thirtieth birthday", "sweet sixteen", "gen z", "generation x", "midlife",
        "on the cusp of adulthood", "getting on in years", "great-grandmother", "middle-ager",
        "old-timer", "grown-up", "ankle-biter", "baby boomer", "senior citizen", "high schooler",
        "a minor", "1990-born", "u-18", "over-60s", "turning thirty", "barely out of her teens",
        "school-age", "college-aged", "anti-aging", "age spots", "full-grown", "a sign of age",
    ],
)  # fmt: skip
def test_idioms_pass_the_quick_look_and_are_found(idiom: str) -> None:
    assert may_mention_age(idiom)
    assert mentions_age(f"The man is {idiom}.") or mentions_age(f"A man with {idiom}.")


def test_words_of_idioms_are_lower_case_and_single() -> None:
    words = IDIOM_WORDS.split()
    assert all(word == word.lower() and word.isalpha() for word in words)
