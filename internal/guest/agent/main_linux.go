package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"time"

	"github.com/smolvm/smolvm/internal/guest/agent/boot"
	"github.com/smolvm/smolvm/internal/guest/link"
)

// memoryLimit is what the Go runtime tries to stay below. Up to 8 MiB of it are the commands' last output.
const memoryLimit = 28 << 20

// Main is the program: process 1 of a guest. It returns only when the guest cannot go on.
func Main(ctx context.Context, build string) error {
	if os.Getpid() != 1 {
		return errors.New("this is the agent inside a SmolVM guest: it runs as process 1 of one, not here")
	}
	boot.Deaf()
	debug.SetMemoryLimit(memoryLimit)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if err := boot.Early(log); err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	if err := boot.CheckDrivers(log); err != nil {
		boot.PowerOff() // a panic would push what was said out of sight
	}
	l, err := listen(ctx)
	if err != nil {
		return err
	}
	sys, err := boot.Prepare(log)
	if err != nil {
		return fmt.Errorf("boot: %w", err)
	}
	return Serve(ctx, l, Options{Build: build, Log: log, System: sys, PowerOff: boot.PowerOff})
}

// listen opens the way by which the host comes.
func listen(ctx context.Context) (net.Listener, error) {
	if boot.Parameter(link.VsockParam) {
		return link.ListenVsock()
	}
	port, err := openPort(ctx)
	if err != nil {
		return nil, err
	}
	if boot.Parameter(link.RawParam) {
		return nil, raw(port)
	}
	return link.Listen(port), nil
}

func openPort(ctx context.Context) (*link.Port, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	dev, err := link.FindPort(ctx, link.PortName)
	if err != nil {
		return nil, err
	}
	return link.OpenPort(dev)
}

// raw answers on the bare port, for measurements. The host may come and go.
func raw(port *link.Port) error {
	for {
		if err := link.ServeRaw(port); errors.Is(err, os.ErrClosed) {
			return err
		}
	}
}
