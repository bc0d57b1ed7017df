package bench

import (
	"bytes"
	"context"
	_ "embed" // the guest's side
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/contest"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/lifecycle"
	"github.com/smolvm/smolvm/internal/network"
)

//go:embed net.py
var netClient string

// netBytes is what goes through one connection, each way.
const netBytes = 256 << 20

// netFigures is what the guest measured in one round.
type netFigures struct {
	Down, Up float64 // MiB/s
	Connect  float64 // ms, with the first byte
	Lookup   float64 // ms
}

func runNet(ctx context.Context, o *Options) ([]api.Figure, error) {
	figures, err := contest.Peers(ctx, o.contest("net", 5))
	if err != nil {
		return nil, err
	}
	more, err := runGuestNet(ctx, o)
	return append(figures, more...), err
}

// contest is what kernel peers are measured with.
func (o *Options) contest(suite string, runs int) contest.Options {
	return contest.Options{
		Temp: o.TempDir, Runs: o.runs(runs), Log: o.Log, Tell: func(format string, args ...any) { o.tell(suite, format, args...) },
	}
}

// runGuestNet measures what a guest has of the network.
func runGuestNet(ctx context.Context, o *Options) ([]api.Figure, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errdefs.Host.Errorf("a listener: %w", err)
	}
	defer func() { _ = l.Close() }()
	go contest.Serve(l, netBytes)
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, err
	}
	v, err := o.startVMWith(ctx, api.Config{Network: api.NetworkPolicy{
		Mode: api.NetAllow, Rules: []api.NetworkRule{{Action: api.RuleAllow, Host: network.HostName, Ports: []string{port}}},
	}})
	if err != nil {
		return nil, err
	}
	defer o.removeVM(ctx, v)
	own, err := o.startOwn(ctx, v)
	if err != nil {
		return nil, err
	}
	defer own.close()
	var r rounds
	for i := range o.runs(5) + 1 {
		o.tell("net", "round %d", i)
		f, err := v.measureNet(ctx, port)
		if err != nil {
			return nil, err
		}
		theirs, err := own.measureNet(ctx, port)
		if err != nil {
			return nil, err
		}
		in, out, err := v.measureCopy(ctx)
		if err != nil {
			return nil, err
		}
		both, err := networkMemory(v.SupervisorPID)
		if err != nil {
			return nil, err
		}
		if i > 0 { // the first one warms everything
			r.add(f, theirs, in, out, both)
		}
	}
	return r.figures(), nil
}

// rounds are what was measured in turn: the guest's network, that of a guest behind the engine's own, and copies.
type rounds struct {
	ownDown, ownUp, copyDown, copyUp figure.Pairs
	connect, lookup, memory          []float64
}

func (r *rounds) add(ours, theirs netFigures, in, out, memory float64) {
	r.ownDown.Add(ours.Down, theirs.Down)
	r.ownUp.Add(ours.Up, theirs.Up)
	r.copyDown.Add(ours.Down, in)
	r.copyUp.Add(ours.Up, out)
	r.connect, r.lookup, r.memory = append(r.connect, ours.Connect), append(r.lookup, ours.Lookup), append(r.memory, memory)
}

func (r *rounds) figures() []api.Figure {
	figures := r.ownDown.Figures("download / engine's own network", figure.AtLeast(1), "download", "engine's own, download", "MiB/s")
	figures = append(figures, r.ownUp.Figures("upload / engine's own network", figure.Goal{}, "upload", "engine's own, upload", "MiB/s")...)
	return append(
		figures,
		figure.New("download / copy in", "ratio", figure.Goal{}, r.copyDown.Ratios()),
		figure.New("copy in", "MiB/s", figure.Goal{}, r.copyDown.B),
		figure.New("upload / copy out", "ratio", figure.Goal{}, r.copyUp.Ratios()),
		figure.New("copy out", "MiB/s", figure.Goal{}, r.copyUp.B),
		figure.New("connect to the first byte", "ms", figure.Goal{}, r.connect),
		figure.New("look a name up", "ms", figure.Goal{}, r.lookup),
		figure.New("supervisor and gateway, Private_Dirty", "MiB", figure.AtMost(30), r.memory),
	)
}

// measureNet has the guest measure one round.
func (v *vm) measureNet(ctx context.Context, port string) (netFigures, error) {
	var stdout, stderr bytes.Buffer
	res, err := v.guest.Exec(ctx, api.ExecRequest{Argv: netCommand(network.HostName, port)}, lifecycle.ExecIO{Stdout: &stdout, Stderr: &stderr})
	if err == nil && res.ExitCode != 0 {
		err = errors.New(stderr.String())
	}
	return netResult(stdout.Bytes(), err)
}

func netCommand(host, port string) []string {
	return []string{"python3", "-c", netClient, host, port, strconv.Itoa(netBytes)}
}

func netResult(stdout []byte, err error) (f netFigures, _ error) {
	if err == nil {
		err = json.Unmarshal(stdout, &f)
	}
	if err != nil {
		return f, errdefs.Internal.Errorf("measure the network: %w", err)
	}
	return f, nil
}

// measureCopy copies a file of copyBytes in and out by the agent, for comparison.
func (v *vm) measureCopy(ctx context.Context) (in, out float64, err error) {
	in, err = rate(func() error { return v.guest.WriteFile(ctx, copyPath, 0o600, io.LimitReader(zeros{}, copyBytes)) })
	if err != nil {
		return 0, 0, err
	}
	if out, err = rate(func() error { return v.readAll(ctx, copyPath, copyBytes) }); err == nil {
		_, err = v.succeed(ctx, "rm", copyPath) // two of them do not fit
	}
	return in, out, err
}

// networkMemory is what a supervisor and its gateway hold.
func networkMemory(supervisor int) (float64, error) {
	total, err := figure.PrivateDirtyMiB(supervisor)
	if err != nil {
		return 0, err
	}
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", supervisor))
	for _, file := range files {
		pids, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(pids)) {
			line, _ := os.ReadFile("/proc/" + field + "/cmdline")
			pid, err := strconv.Atoi(field)
			if err != nil || !strings.HasSuffix(string(line), "\x00gateway\x00") {
				continue
			}
			n, err := figure.PrivateDirtyMiB(pid)
			return total + n, err
		}
	}
	return 0, errdefs.Internal.Errorf("the VM has no gateway")
}
