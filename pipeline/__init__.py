"""What ties the leaves together: config, data sets, stages, runs, trainings, commands.

Where to look:
    an experiment's file                   config, config_*, yaml_file, presets
    labels, segments, clips                datasets, dataset_*, csv_file, segments, clips
    videos and what they are               videos, promises, identity; boxes, boxes_store
    a config made concrete                 experiment, head_check; known (without torch)
    stages, their settings and keys        stages, stage_*, keys, clip_table, rows,
                                           generations
    what is to be done                     plan
    doing it                               run, run_aligned, align; work, unit, stage_work,
                                           shard_thread
    jobs on a cluster                      executor_slurm, slurm_task, task_journal, job_folder,
                                           job_states, merge, merge_commands
    doing it                               run, run_setup; work, unit_queue; workbench, unit,
                                           stage_work, shard_thread; run_aligned, align
    who does it                            executors, executor_*; local_worker, processes
    on a Ray cluster                       ray_*
    what is to be done                     plan, sizing, rates, forecast, checks, stored
    doing it                               run, run_aligned, align; work, unit, stage_work,
                                           shard_thread
    what is to be done                     plan, sizing, stored; settled (nothing is)
    doing it                               run, run_setup; work, unit_queue; workbench, unit,
                                           stage_work, shard_thread; run_aligned, align
    who does it                            executors, executor_*; local_worker, processes
    jobs on a cluster                      config_slurm, job_states, task_journal
    stages, their settings and keys        stages, stage_*, keys, rows, generations
    doing it                               run, run_setup; work, unit_queue; workbench, unit,
                                           stage_work, shard_thread; run_aligned, align
    who does it                            executors, executor_*; local_worker, processes
    doing it without keeping it            rehearsal
    why it is to be done                   explain, explain_settings, row_account
    decoding for it                        decoder; decode_pool, decode_worker, frame_ring;
                                           decode_videos, decode_pass; prefetch
    what it says                           run_report, timings, console, head_console; journal,
                                           journal_files, worker_board; error_classes, reproduce
    training backbones                     stage_one, finetune, finetune_*
    training heads                         head_rows, maps_reader, head_runs, head_metrics,
                                           train_settings, runs, run_status
    what heads answered                    saved_scores, fusion, submission, submission_*
    training many heads                    sweep, sweep_*
    reports of runs                        report, report_*
    commands                               commands, plan_commands, failure_commands,
                                           explain_commands, run_cli, head_cli,
                                           head_commands,
                                           score_commands, store_cli, store_commands, store_*,
                                           cli_support
    the demonstration                      demo, toy_*
    errors                                 errors
"""
