"""The command line: one thin file a command. Heavy imports wait until a command needs them."""

import sys

import typer

from boxwright.cli import (
    assign,
    average,
    benchmark,
    calibrate,
    card,
    compare,
    data,
    demo,
    evaluate,
    export,
    import_checkpoint,
    init,
    label,
    loop,
    lr_find,
    model,
    predict,
    pretrain,
    pseudo_label,
    report,
    runs,
    schedule,
    serve,
    sweep,
    threshold,
    train,
    zoo,
)

app = typer.Typer(
    name="boxwright",
    help="Build, judge and ship object detectors on your own data.\n\n"
    "Example: boxwright train configs/bccd.yaml --set train.epochs=20",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich takes half of the time that --help has
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
app.add_typer(assign.app, name="assign")
app.add_typer(model.app, name="model")
app.add_typer(label.app, name="label")
app.command(epilog=init.EXAMPLE)(init.init)
app.command(epilog=train.EXAMPLE)(train.train)
app.command(epilog=schedule.EXAMPLE)(schedule.schedule)
app.command("lr-find", epilog=lr_find.EXAMPLE)(lr_find.lr_find)
app.command(epilog=sweep.EXAMPLE)(sweep.sweep)
app.command(epilog=pretrain.EXAMPLE)(pretrain.pretrain)
app.command(epilog=loop.EXAMPLE)(loop.loop)
app.command(epilog=evaluate.EXAMPLE)(evaluate.evaluate)
app.command(epilog=compare.EXAMPLE)(compare.compare)
app.command(epilog=calibrate.EXAMPLE)(calibrate.calibrate)
app.command(epilog=threshold.EXAMPLE)(threshold.threshold)
app.command(epilog=predict.EXAMPLE)(predict.predict)
app.command("pseudo-label", epilog=pseudo_label.EXAMPLE)(pseudo_label.pseudo_label)
app.command(epilog=average.EXAMPLE)(average.average)
app.command(epilog=report.EXAMPLE)(report.report)
app.command(epilog=runs.EXAMPLE)(runs.runs)
app.command(epilog=card.EXAMPLE)(card.card)
app.command(epilog=export.EXAMPLE)(export.export)
app.command(epilog=serve.EXAMPLE)(serve.serve)
app.command(epilog=benchmark.EXAMPLE)(benchmark.benchmark)
app.command("import-checkpoint", epilog=import_checkpoint.EXAMPLE)(import_checkpoint.import_checkpoint)
app.command(epilog=zoo.EXAMPLE)(zoo.zoo)
app.command(epilog=demo.EXAMPLE)(demo.demo)


def main() -> None:
    """Run the command line: exit code 0 done, 1 faults found, 2 misuse, 130 stopped by Ctrl-C."""
    from boxwright.cli.pipe import tolerate_leaving_readers
    from boxwright.errors import BoxwrightError

    tolerate_leaving_readers()
    try:
        app()
    except BoxwrightError as error:
        sys.stderr.write(f"boxwright: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
