"""The whole configuration, a section per stage."""

from agetf_pipeline.config.assemble import AssembleConfig
from agetf_pipeline.config.base import Section
from agetf_pipeline.config.caption import CaptionConfig
from agetf_pipeline.config.enhance import EnhanceConfig, RecheckConfig, TrainEnhancersConfig
from agetf_pipeline.config.evaluate import EvaluateConfig, TrainEvaluatorsConfig
from agetf_pipeline.config.experts import TrainExpertsConfig
from agetf_pipeline.config.filter import FilterConfig
from agetf_pipeline.config.ingest import IngestConfig
from agetf_pipeline.config.predict import PredictConfig
from agetf_pipeline.config.quality import QualityConfig
from agetf_pipeline.config.register import RegisterConfig, ReleaseConfig
from agetf_pipeline.config.relabel import RelabelConfig
from agetf_pipeline.config.runtime import RuntimeConfig, WorkspaceConfig
from agetf_pipeline.config.synthesize import SynthesizeConfig
from agetf_pipeline.config.train import DistillConfig, TrainConfig


class PipelineConfig(Section):
    """Everything that a run can be told."""

    workspace: WorkspaceConfig = WorkspaceConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    synthesize: SynthesizeConfig = SynthesizeConfig()
    ingest: IngestConfig = IngestConfig()
    train_experts: TrainExpertsConfig = TrainExpertsConfig()
    predict: PredictConfig = PredictConfig()
    relabel: RelabelConfig = RelabelConfig()
    filter: FilterConfig = FilterConfig()
    train_enhancers: TrainEnhancersConfig = TrainEnhancersConfig()
    enhance: EnhanceConfig = EnhanceConfig()
    recheck: RecheckConfig = RecheckConfig()
    caption: CaptionConfig = CaptionConfig()
    assemble: AssembleConfig = AssembleConfig()
    distill: DistillConfig = DistillConfig()
    train: TrainConfig = TrainConfig()
    train_evaluators: TrainEvaluatorsConfig = TrainEvaluatorsConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    register_model: RegisterConfig = RegisterConfig()
    release: ReleaseConfig = ReleaseConfig()
    quality: QualityConfig = QualityConfig()
