// Command smolvm is the whole program: the CLI and, hidden, the processes that it starts of itself: the supervisor, the
// gateway, the launcher of monitors, and the init of namespaces that images are built in.
//
// Layer: top. It puts the parts together and holds nothing else.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/smolvm/smolvm/internal/bench"
	"github.com/smolvm/smolvm/internal/cli"
	"github.com/smolvm/smolvm/internal/network/control"
	"github.com/smolvm/smolvm/internal/network/gateway/process"
	"github.com/smolvm/smolvm/internal/supervisor"
	"github.com/smolvm/smolvm/internal/sys/launch"
	"github.com/smolvm/smolvm/internal/sys/nsinit"
	"github.com/smolvm/smolvm/internal/wire"
)

// What script/build stamps by -ldflags -X.
var (
	version     = "v0.0.0-unknown"
	commit      = "unknown"
	agentDigest string
)

func main() { os.Exit(run()) }

func run() int {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case launch.Command:
			return launch.Main()
		case nsinit.Command:
			return nsinit.Main()
		case control.Command:
			return process.Main(context.Background())
		case superviseCommand:
			return supervise(context.Background(), os.Args[2:])
		}
	}
	return app().Main(context.Background(), os.Args[1:])
}

func app() cli.App {
	return cli.App{
		Version: programVersion(),
		Stdin:   os.Stdin,
		Stdout:  os.Stdout,
		Stderr:  os.Stderr,
		Open:    open,
		Doctor:  examine,
		Bench:   measure,
		Serve:   answer,
		Setenv:  os.Setenv,
		Engines: openEngines,

		BenchSuites: bench.Suites(),
	}
}

// superviseCommand is the hidden subcommand of a supervisor, as internal/supervisor/rpc names it.
const superviseCommand = "supervise"

func supervise(ctx context.Context, args []string) int {
	if len(args) != 1 {
		fmt.Fprintln(os.Stderr, "smolvm: supervise is for smolvm itself")
		return 2
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("vm", args[0])
	return supervisor.Main(ctx, args[0], supervisor.Deps{Engines: wire.Engines(os.Getenv("SMOLVM_HOME"), log), Version: programVersion()})
}
