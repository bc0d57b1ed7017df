// Package raw runs Firecracker as its own documentation does, by a file and its API, without an engine or a wall of ours: what
// our engine's machines are compared with.
//
// Layer: below bench.
package raw

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/smolvm/smolvm/errdefs"
	"github.com/smolvm/smolvm/internal/sys/tail"
)

// Files are what it boots from.
type Files struct {
	Program                string
	Kernel, Initrd         string
	Image, Disk, Modules   string
	Cmdline, MAC, AgentTAP string
	CPUs, MemoryMiB        int
	Port                   uint32 // of the agent's vsock
}

// retry is between attempts to reach a guest that boots, as short as our engine's.
const retry = 2 * time.Millisecond

// process is one Firecracker.
type process struct {
	dir    string
	cmd    *exec.Cmd
	log    tail.Buffer
	exited chan struct{}
	api    http.Client
}

// spawn starts one in dir.
func spawn(ctx context.Context, program, dir string, args ...string) (*process, error) {
	p := &process{dir: dir, exited: make(chan struct{})}
	for _, name := range []string{"api.sock", "vsock.sock"} {
		_ = os.Remove(filepath.Join(dir, name)) // a former one's
	}
	p.cmd = exec.CommandContext(context.WithoutCancel(ctx), program, append([]string{"--api-sock", "api.sock"}, args...)...) //nolint:gosec // the benchmark's own
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = dir, &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.api.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return p.dial(ctx, "api.sock") }}
	if err := p.cmd.Start(); err != nil {
		return nil, errdefs.Host.Errorf("start Firecracker: %w", err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) close() {
	_ = p.cmd.Process.Kill()
	<-p.exited
	p.api.CloseIdleConnections()
}

// dial connects with a socket of its directory, once that is there.
func (p *process) dial(ctx context.Context, name string) (net.Conn, error) {
	for {
		var d net.Dialer
		c, err := d.DialContext(ctx, "unix", filepath.Join(p.dir, name))
		if err == nil || !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ECONNREFUSED) {
			return c, err
		}
		if err := p.wait(ctx, err); err != nil {
			return nil, err
		}
	}
}

func (p *process) wait(ctx context.Context, why error) error {
	select {
	case <-time.After(retry):
		return nil
	case <-p.exited:
		return errdefs.Engine.Errorf("Firecracker ended: %s", p.log.Lines(5))
	case <-ctx.Done():
		return errdefs.Timeout.Errorf("%w (%w)", ctx.Err(), why)
	}
}

// guest connects with the agent.
func (p *process) guest(ctx context.Context, port uint32) (net.Conn, error) {
	for {
		c, err := p.connect(ctx, port)
		if err == nil {
			return c, nil
		}
		if err := p.wait(ctx, err); err != nil {
			return nil, err
		}
	}
}

func (p *process) connect(ctx context.Context, port uint32) (net.Conn, error) {
	c, err := p.dial(ctx, "vsock.sock")
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(2 * time.Second)) // a guest without its driver never answers
	_, err = fmt.Fprintf(c, "CONNECT %d\n", port)
	var line []byte
	for b := make([]byte, 1); err == nil && len(line) < 32 && !bytes.HasSuffix(line, []byte("\n")); line = append(line, b...) {
		_, err = io.ReadFull(c, b)
	}
	if err == nil && !strings.HasPrefix(string(line), "OK ") {
		err = fmt.Errorf("it answers %q", line)
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, c.SetDeadline(time.Time{})
}

// call makes a request of the API.
func (p *process) call(ctx context.Context, method, path string, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://firecracker"+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := p.api.Do(req)
	if err != nil {
		return errdefs.Engine.Errorf("%s %s: %w: %s", method, path, err, p.log.Lines(5))
	}
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	_ = resp.Body.Close()
	if resp.StatusCode >= 300 {
		return errdefs.Engine.Errorf("%s %s: %s", method, path, said)
	}
	return nil
}

type object = map[string]any

// boot boots a machine by a file.
func boot(ctx context.Context, f Files, dir string) (*process, error) {
	drive := func(id, path string, readOnly bool) object {
		return object{"drive_id": id, "path_on_host": path, "is_root_device": false, "is_read_only": readOnly, "cache_type": "Writeback"}
	}
	config := object{
		"boot-source":        object{"kernel_image_path": f.Kernel, "initrd_path": f.Initrd, "boot_args": f.Cmdline},
		"machine-config":     object{"vcpu_count": f.CPUs, "mem_size_mib": f.MemoryMiB},
		"drives":             []object{drive("image", f.Image, true), drive("disk", f.Disk, false), drive("modules", f.Modules, true)},
		"network-interfaces": []object{{"iface_id": "eth0", "host_dev_name": f.AgentTAP, "guest_mac": f.MAC}},
		"vsock":              object{"guest_cid": 3, "uds_path": "vsock.sock"},
		"entropy":            object{},
	}
	b, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, b, 0o600); err != nil { //nolint:gosec // the benchmark's own directory
		return nil, errdefs.Host.Errorf("%w", err)
	}
	return spawn(ctx, f.Program, dir, "--config-file", path)
}

// snapshot writes a machine's snapshot into its directory.
func (p *process) snapshot(ctx context.Context) error {
	if err := p.call(ctx, http.MethodPatch, "/vm", object{"state": "Paused"}); err != nil {
		return err
	}
	return p.call(ctx, http.MethodPut, "/snapshot/create", object{"snapshot_type": "Full", "snapshot_path": "state", "mem_file_path": "memory"})
}

// restore goes on from the snapshot in dir.
func restore(ctx context.Context, program, dir string) (*process, error) {
	p, err := spawn(ctx, program, dir)
	if err != nil {
		return nil, err
	}
	err = p.call(ctx, http.MethodPut, "/snapshot/load", object{
		"snapshot_path": "state", "mem_backend": object{"backend_type": "File", "backend_path": "memory"}, "resume_vm": true,
	})
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}
