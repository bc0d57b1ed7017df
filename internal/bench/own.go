package bench

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/smolvm/smolvm/api"
	"github.com/smolvm/smolvm/internal/bench/bare"
	"github.com/smolvm/smolvm/internal/bench/sdk"
	"github.com/smolvm/smolvm/internal/guest/client"
	"github.com/smolvm/smolvm/internal/guest/proto"
	"github.com/smolvm/smolvm/internal/network/control"
)

// own is a bare machine with the engine's own network, and a guest that knows who it is.
type own struct {
	*bare.Machine
	guest *client.Client
}

func (o *own) close() {
	if o.guest != nil {
		_ = o.guest.Close()
	}
	o.Close()
}

// startOwn starts one like v. Its network has v's addresses; it looks no name up.
func (o *Options) startOwn(ctx context.Context, v *vm) (_ *own, err error) {
	accel, err := o.accelerator(ctx, v)
	if err != nil {
		return nil, err
	}
	kit, err := o.bareKit(ctx, accel)
	if err != nil {
		return nil, err
	}
	kit.Network = true
	m := &own{}
	if m.Machine, err = o.startBare(ctx, kit, ""); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	if m.guest, err = client.New(ctx, m.DialGuest); err != nil {
		return nil, err
	}
	id := bytes.Repeat([]byte{7}, 16)
	_, err = m.guest.Configure(ctx, &proto.ConfigureRequest{
		Identity: &proto.Identity{Id: "bench", Hostname: api.Hostname("bench"), MachineId: id}, DiskUuid: id,
		WallClockNs: time.Now().UnixNano(), Seed: make([]byte, 64),
		Network: &proto.Network{Address: control.Guest().String(), Gateway: control.Gateway().String(), Dns: control.Gateway().String(), Mtu: 1500},
	})
	return m, err
}

// measureNet has the guest measure one round. Under the gateway's address lies the host's loopback.
func (o *own) measureNet(ctx context.Context, port string) (netFigures, error) {
	var stdout, stderr bytes.Buffer
	start := &proto.ExecStart{Argv: netCommand(control.Gateway().String(), port), OnDisconnectKill: true, ExecId: "net-" + time.Now().Format("150405.000000")}
	res, err := o.guest.Exec(ctx, start, client.Streams{Stdout: &stdout, Stderr: &stderr})
	if err == nil && res.GetExitCode() != 0 {
		err = errors.New(stderr.String())
	}
	return netResult(stdout.Bytes(), err)
}

func runSDK(ctx context.Context, o *Options) ([]api.Figure, error) {
	vm, err := o.startVM(ctx)
	if err != nil {
		return nil, err
	}
	defer o.removeVM(ctx, vm)
	call := func() error { _, err := vm.succeed(ctx, "true"); return err }
	return sdk.Compare(ctx, o.Home, vm.ID, o.runs(9), call, func(i int) { o.tell("sdk", "pair %d", i) })
}
