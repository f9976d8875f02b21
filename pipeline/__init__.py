"""What ties the leaves together: config, data sets, stages, runs, trainings, commands.

Where to look:
    an experiment's file                   config, config_*, yaml_file, presets
    labels, segments, clips                datasets, dataset_*, csv_file, segments, clips
    videos and what they are               videos, promises, identity; boxes, boxes_store
    a config made concrete                 experiment, head_check; known (without torch)
    stages, their settings and keys        stages, stage_*, keys, clip_table, rows,
                                           generations
    what is to be done                     plan, stored; settled (nothing is)
    what it will take                      forecast, sizing, rates, rehearsal; checks,
                                           executor_checks, input_checks
    why it is to be done                   explain, explain_rows, explain_settings, row_account
    doing it                               run, run_setup, run_log, record; work, unit_queue;
                                           workbench, unit, stage_work, shard_thread, patience;
                                           run_aligned, aligner, align
    who does it                            executors, executor_*, config_executor; crew,
                                           local_worker, processes; ray_*
    jobs on a cluster                      config_slurm, slurm_task, task_journal, job_folder,
                                           job_states, job_report, job_watch, merge,
                                           merge_commands
    decoding for it                        decoder; decode_pool, decode_process, decode_limits,
                                           decode_worker, frame_ring;
                                           decode_videos, decode_pass; prefetch
    what it says                           run_report, timings, console, tables, head_console;
                                           journal, journal_files, worker_board, status_view;
                                           error_classes, reproduce
    training backbones                     stage_one, finetune, finetune_*
    training heads                         head_rows, maps_reader, head_runs, head_metrics,
                                           train_settings, runs, run_status
    what heads answered                    saved_scores, fusion, submission, submission_*
    training many heads                    sweep, sweep_*
    reports of runs                        report, report_*
    commands                               run_cli, head_cli, store_cli, cli_support; commands,
                                           plan_commands, status_commands, failure_commands,
                                           explain_commands, head_commands, score_commands,
                                           store_commands, store_*
    the demonstration                      demo, toy_*
    errors                                 errors
"""
