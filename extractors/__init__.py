"""Videos in, numbers out: readers, networks, RoIAlign. Nothing here knows of stores or stages.

Where to look:
    opening a video                        video (`open_video`), video_reader (the interface)
    video files                            pyav_*, packet_index; decord_reader
    frames and flow in folders and tars    frames_reader, frames_numbered, frames_images, frames_tar
    what is refused                        limits, regular_file, file_stamp
    signs of life                          heartbeat
    resizing, cropping, normalising        geometry, transforms
    what an extractor is, and its name     base, registry
    3-D networks                           clip_network (running any of them);
                                           resnet3d, i3d, r2plus1d, torchvision_*
    detectors and given boxes              objects (what they share); faster_rcnn, detectron2_*,
                                           given_boxes
    optical flow                           flow, flow_registry, flow_raft, flow_tvl1, flow_clips
    precision, device, memory              inference, heap
    checkpoints                            weights, checkpoint_files, numpy_pickles
    RoIAlign                               roi
"""
