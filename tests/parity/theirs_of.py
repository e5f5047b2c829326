"""transformers' detectors of published sizes, with random weights, for tests and benchmarks."""

import transformers

SAME = {"anchor_image_size": None, "freeze_backbone_batch_norms": False}


def hgnet(**more):
    """The backbone of D-FINE N and S."""
    return transformers.HGNetV2Config(
        stem_channels=[3, 16, 16], stage_in_channels=[16, 64, 256, 512], stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024], stage_num_blocks=[1, 1, 2, 1], stage_numb_of_layers=[3, 3,
        3, 3], hidden_sizes=[64, 256, 512, 1024], use_learnable_affine_block=True, **more,
    )  # fmt: skip


def dfine_n(**more):
    return transformers.DFineForObjectDetection(
        transformers.DFineConfig(
            backbone_config=hgnet(out_indices=[3, 4]), encoder_in_channels=[512, 1024], feat_strides=[16, 32],
            encoder_hidden_dim=128, encode_proj_layers=[1], encoder_ffn_dim=512, hidden_expansion=0.34,
            depth_mult=0.5, d_model=128, decoder_in_channels=[128, 128], decoder_ffn_dim=512,
            num_feature_levels=2, decoder_n_points=[6, 6], decoder_layers=3, **SAME, **more,
        )
    )  # fmt: skip


def dfine_s(**more):
    return transformers.DFineForObjectDetection(
        transformers.DFineConfig(
            backbone_config=hgnet(out_indices=[2, 3, 4]), encoder_in_channels=[256, 512, 1024],
            hidden_expansion=0.5, depth_mult=0.34, decoder_n_points=[3, 6, 3], decoder_layers=3,
            **SAME, **more,
        )
    )  # fmt: skip


def detr_r50(**more):
    return transformers.DetrForObjectDetection(
        transformers.DetrConfig(
            use_timm_backbone=True, backbone="resnet50", use_pretrained_backbone=False, **more,
        )
    )  # fmt: skip


def rtdetr_r18(**more):
    backbone = transformers.RTDetrResNetConfig(
        layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], out_indices=[2, 3, 4]
    )
    return transformers.RTDetrV2ForObjectDetection(
        transformers.RTDetrV2Config(
            backbone_config=backbone, encoder_in_channels=[128, 256, 512], hidden_expansion=0.5,
            decoder_layers=3, **SAME, **more,
        )
    )  # fmt: skip
