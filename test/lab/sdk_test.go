package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// wheelsVar is a folder with what the Python package and its tests need, for Debian's Python.
const wheelsVar = "SMOLVM_LAB_WHEELS"

// TestLabGo: a module outside the repository uses VMs by the Go SDK, with no word about the engine.
func TestLabGo(t *testing.T) {
	beyondCore(t)
	for _, engine := range engines() {
		t.Run(engine, func(t *testing.T) {
			l := open(t)
			bin := filepath.Join(l.dir, "sdk-user")
			if out, err := exec.CommandContext(t.Context(), filepath.Join("..", "..", "script", "sdk-user"), bin).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			j := l.users(t, engine, "^TestVMGoSDK$")
			j.Args = append([]string{"bash", "-euc", proving, "bash"}, j.Args...)
			j.add(t, "bin/sdk-user", bin)
			j.Env = append(j.Env, "SMOLVM_SDK_USER=/work/bin/sdk-user")
			l.pass(t, j, "--- PASS: TestVMGoSDK")
		})
	}
}

// proving runs a command once the engine's KVM is proven: an SDK's VM may be emulated, and would be if the first boot took longer
// than ten seconds.
const proving = `
	smolvm run -- uname -r
	exec "$@"
`

// pythons are the Python package's tests that use most of it.
const pythons = "test_sdk and (test_run or test_timeout or test_files or test_ports or test_life or test_asynchronous)"

// TestLabPython installs the Python package as its users do and runs a core of its tests with VMs.
func TestLabPython(t *testing.T) {
	beyondCore(t)
	for _, engine := range engines() {
		t.Run(engine, func(t *testing.T) {
			l := open(t)
			j := l.users(t, engine, "^$")
			delete(j.files, "run.test")
			for _, dir := range []string{os.Getenv(wheelsVar), filepath.Join("..", "..", "dist")} {
				wheels, err := filepath.Glob(filepath.Join(dir, "*.whl"))
				must(t, err)
				if len(wheels) == 0 {
					t.Fatalf("no wheels in %q: script/test-lab fetches and builds them", dir)
				}
				for _, path := range wheels {
					j.add(t, filepath.Join("wheels", filepath.Base(path)), path)
				}
			}
			tests := filepath.Join("..", "..", "python", "tests")
			files, err := filepath.Glob(filepath.Join(tests, "vm", "*.py"))
			must(t, err)
			for _, path := range files {
				j.add(t, filepath.Join("tests/vm", filepath.Base(path)), path)
			}
			j.Args = []string{"bash", "-euc", `
				smolvm run -- uname -r # proves the accelerator
				rm bin/smolvm # the wheel has its own
				python3 -m venv --without-pip venv
				pip3 --python venv/bin/python install -q --disable-pip-version-check --no-index --no-compile --find-links wheels smolvm pytest
				unset SMOLVM_BIN
				PATH=/work/venv/bin:$PATH
				smolvm --version
				cd tests
				python -m pytest -v -p no:cacheprovider --durations=0 -k "$1" vm
				left=$(smolvm ls -a -q)
				[ -z "$left" ] || { echo "VMs are left: $left"; exit 1; }
				sleep 1
				! pgrep -a '^(smolvm|firecracker|qemu)' || { echo "processes are left"; exit 1; }
			`, "bash", pythons}
			j.Env = append(j.Env, "SMOLVM_TEST_BOOT_TIMEOUT=180")
			l.pass(t, j, " passed")
		})
	}
}
