package bench

import (
	"context"
	"strings"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/bench/bare"
	"github.com/smolvm/smolvm/internal/bench/figure"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/lifecycle"
)

// vm is a VM of the benchmark's own: gone with this process.
type vm struct {
	api.Sandbox
	guest lifecycle.Guest
}

// startVM creates and starts a VM and opens the way into it.
func (o *Options) startVM(ctx context.Context) (*vm, error) {
	return o.startVMWith(ctx, api.Config{})
}

func (o *Options) startVMWith(ctx context.Context, cfg api.Config) (*vm, error) {
	box, err := o.Manager.Create(ctx, cfg, lifecycle.CreateOptions{Owner: api.OwnerClient})
	if err != nil {
		return nil, err
	}
	v := &vm{Sandbox: box}
	if box, err = o.Manager.Start(ctx, box.ID, nil); err == nil {
		v.Sandbox = box
		v.guest, err = o.Manager.Connect(ctx, box.ID)
	}
	if err != nil {
		o.removeVM(ctx, v)
		return nil, err
	}
	return v, nil
}

func (o *Options) removeVM(ctx context.Context, v *vm) {
	if v.guest != nil {
		_ = v.guest.Close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := o.Manager.Remove(ctx, v.ID, true); err != nil {
		o.Log.Error("the benchmark's VM stays", "vm", v.ID, "error", err)
	}
}

// succeed runs a command that must exit 0.
func (v *vm) succeed(ctx context.Context, argv ...string) (api.ExecResult, error) {
	res, err := v.guest.Exec(ctx, api.ExecRequest{Argv: argv}, lifecycle.ExecIO{})
	if err == nil && res.ExitCode != 0 {
		err = errdefs.Internal.Errorf("%v exited with %d: %s", argv, res.ExitCode, res.Error)
	}
	return res, err
}

func runBoot(ctx context.Context, o *Options) ([]api.Figure, error) {
	var p figure.Pairs
	var accel string
	for i := range o.runs(5) + 1 {
		o.tell("boot", "pair %d", i)
		t0 := time.Now()
		v, err := o.startVM(ctx)
		if err != nil {
			return nil, err
		}
		_, err = v.succeed(ctx, "true")
		whole := time.Since(t0).Seconds()
		if err == nil {
			accel, err = o.accelerator(ctx, v)
		}
		o.removeVM(ctx, v)
		if err != nil {
			return nil, err
		}
		hello, err := o.bareHello(ctx, accel)
		if err != nil {
			return nil, err
		}
		if i > 0 { // the first pair warms the page cache
			p.Add(whole, hello)
		}
	}
	return p.Figures("create to first answer / bare engine to hello", figure.AtMost(1.2), "create to first answer", "bare engine to hello", "s"), nil
}

// bareHello boots a bare machine and returns the seconds until its agent says hello.
func (o *Options) bareHello(ctx context.Context, accel string) (float64, error) {
	kit, err := o.bareKit(ctx, accel)
	if err != nil {
		return 0, err
	}
	t0 := time.Now()
	b, err := o.startBare(ctx, kit, "")
	if err != nil {
		return 0, err
	}
	defer b.Close()
	c, err := client.New(ctx, b.DialGuest)
	if err != nil {
		return 0, err
	}
	took := time.Since(t0).Seconds()
	return took, c.Close()
}

// bareKit is what both sides run from.
func (o *Options) bareKit(ctx context.Context, accel string) (bare.Kit, error) {
	return bare.NewKit(ctx, o.Images, o.Agent, accel, o.Progress)
}

// startBare starts a machine without SmolVM around it.
func (o *Options) startBare(ctx context.Context, kit bare.Kit, cmdline string) (*bare.Machine, error) {
	return bare.Start(ctx, o.Engine, kit, o.TempDir, cmdline)
}

// accelerator returns the engine's name of the accelerator that v runs with.
func (o *Options) accelerator(ctx context.Context, v *vm) (string, error) {
	caps, err := o.Engine.Probe(ctx)
	if err != nil {
		return "", err
	}
	for _, a := range caps.Accels {
		if strings.HasPrefix(v.Accelerator, a.Name) {
			return a.Name, nil
		}
	}
	return "", errdefs.Internal.Errorf("the engine knows no accelerator %q", v.Accelerator)
}
