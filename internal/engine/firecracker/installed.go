package firecracker

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/smolvm/smolvm/internal/engine/firecracker/fcapi"
)

// Installed returns the releases below dir that can be used, the one to take first: a tested one goes before one that is
// merely newer.
func Installed(dir string) []fcapi.Version {
	entries, err := os.ReadDir(dir)
	if dir == "" || err != nil {
		return nil
	}
	var found []fcapi.Version
	for _, e := range entries {
		v, err := fcapi.ParseDir(e.Name())
		if err != nil || refusal(v) != "" {
			continue
		}
		if _, err := os.Stat(ProgramIn(dir, v)); err == nil {
			found = append(found, v)
		}
	}
	slices.SortFunc(found, func(a, b fcapi.Version) int {
		at, bt := slices.Contains(tested(), a), slices.Contains(tested(), b)
		switch {
		case at != bt && at:
			return -1
		case at != bt:
			return 1
		case b.Before(a):
			return -1
		}
		return 1
	})
	return found
}

// ProgramIn is where release v has its program below dir.
func ProgramIn(dir string, v fcapi.Version) string { return filepath.Join(dir, v.String(), program) }

func installed(dir string) string {
	if all := Installed(dir); len(all) > 0 {
		return ProgramIn(dir, all[0])
	}
	return ""
}
