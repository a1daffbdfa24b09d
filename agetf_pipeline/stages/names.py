"""Names of the stages, in order; importable in no time, for the command line's help."""

STAGE_SUMMARIES: dict[str, str] = {
    "synthesize": "draw a synthetic corpus in the layouts of the real ones",
    "ingest": "read the photographs safely; quarantine what cannot be read",
    "train_experts": "train the four age experts on the labelled images",
    "predict": "let every expert read every face",
    "relabel": "calibrate the mixture of experts and label every face",
    "filter": "decide which images training may use, with reasons",
    "train_enhancers": "train the colouriser and the super-resolver",
    "enhance": "colourise and super-resolve what needs it",
    "recheck": "compare the mixture's age before and after enhancement",
    "caption": "write captions and embeddings without words of age",
    "assemble": "join everything into the training manifest",
    "distill": "train the networks that guide training",
    "train": "train the AgeTransformer",
    "train_evaluators": "train the networks that only evaluation may use",
    "evaluate": "measure labels, enhancement and renderings; write the report",
    "register": "log the run and register the model in MLflow",
    "release": "write the files for others",
}
