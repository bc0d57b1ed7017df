package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// initrdModules are what the agent must load before the root file system is there: the transports and devices of both
// engines, and overlayfs. What a kernel has built in is left out by what modules.builtin says.
func initrdModules() []string {
	return []string{
		"virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "virtio_console",
		"vmw_vsock_virtio_transport", "ext4", "overlay",
	}
}

// moduleName is what the kernel calls the module in file p: "kernel/drivers/char/hw_random/virtio-rng.ko.xz" is
// virtio_rng.
func moduleName(p string) string {
	name, _, _ := strings.Cut(path.Base(p), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// depends is the content of a modules.dep: per module the files it needs, its own first, in depmod's order.
type depends map[string][]string

const (
	maxDepLine = 1 << 20
	maxModules = 1 << 16
)

// parseDepends reads modules.dep.
func parseDepends(r io.Reader) (depends, error) {
	deps := depends{}
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxDepLine)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			return nil, fmt.Errorf("modules.dep: %q has no colon", line)
		}
		files := append([]string{file}, strings.Fields(needs)...)
		for _, f := range files {
			if !localModule(f) {
				return nil, fmt.Errorf("modules.dep names the file %q", f)
			}
		}
		deps[moduleName(file)] = files
		if len(deps) > maxModules {
			return nil, errors.New("modules.dep names too many modules")
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("modules.dep: %w", err)
	}
	return deps, nil
}

// localModule reports whether p is a module's path below the modules directory.
func localModule(p string) bool {
	return !path.IsAbs(p) && path.Clean(p) == p && !strings.HasPrefix(p, "..") &&
		strings.Contains(path.Base(p), ".ko") && moduleName(p) != ""
}

// parseBuiltin reads modules.builtin: the names of what is no module.
func parseBuiltin(r io.Reader) (map[string]bool, error) {
	names := map[string]bool{}
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxDepLine)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" {
			names[moduleName(line)] = true
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("modules.builtin: %w", err)
	}
	return names, nil
}

// loadOrder returns the files that bring the wanted modules, each after what it needs. depmod lists a module's needs so
// that the last must be loaded first.
func loadOrder(wanted []string, deps depends, builtin map[string]bool) ([]string, error) {
	var order []string
	seen := map[string]bool{}
	for _, name := range wanted {
		if builtin[name] {
			continue
		}
		files, ok := deps[name]
		if !ok {
			return nil, fmt.Errorf("the kernel has no module %s", name)
		}
		for _, file := range slices.Backward(files) {
			if !seen[file] {
				seen[file] = true
				order = append(order, file)
			}
		}
	}
	return order, nil
}
