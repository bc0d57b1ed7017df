package fcapi

import (
	"fmt"
	"regexp"
	"strconv"
)

// Version is a release of Firecracker.
type Version struct{ Major, Minor, Micro int }

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro) }

// Before reports whether v is older than w.
func (v Version) Before(w Version) bool {
	if v.Major != w.Major {
		return v.Major < w.Major
	}
	if v.Minor != w.Minor {
		return v.Minor < w.Minor
	}
	return v.Micro < w.Micro
}

// The first line of `firecracker --version`. A build of its own may have a suffix.
var versionLine = regexp.MustCompile(`^Firecracker v(\d{1,4})\.(\d{1,4})\.(\d{1,4})(?:[-+ ]\S{0,100})?\s*(?:\n|$)`)

// ParseVersion reads what `firecracker --version` says.
func ParseVersion(said []byte) (Version, error) {
	if m := versionLine.FindSubmatch(said); m != nil {
		return version(m[1:]), nil
	}
	return Version{}, fmt.Errorf("it is no Firecracker: it says %.100q", said)
}

var versionField = regexp.MustCompile(`^v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(?:[-+]\S{0,100})?$`)

// parseField reads a version as the API tells it.
func parseField(s string) (Version, error) {
	if m := versionField.FindStringSubmatch(s); m != nil {
		return version([][]byte{[]byte(m[1]), []byte(m[2]), []byte(m[3])}), nil
	}
	return Version{}, fmt.Errorf("version %.100q", s)
}

func version(digits [][]byte) Version {
	var n [3]int
	for i := range n {
		n[i], _ = strconv.Atoi(string(digits[i])) // up to four digits
	}
	return Version{n[0], n[1], n[2]}
}

// Features are the fields that not every version has.
type Features struct {
	MTU              bool // of a network card
	NetworkOverrides bool // at the load of a snapshot
}

// FeaturesOf returns what version v knows.
func FeaturesOf(v Version) Features {
	return Features{
		MTU:              !v.Before(Version{1, 16, 0}),
		NetworkOverrides: !v.Before(Version{1, 12, 0}),
	}
}

// ParseDir reads a version as String writes it.
func ParseDir(s string) (Version, error) {
	v, err := parseField(s)
	if err == nil && v.String() != s {
		err = fmt.Errorf("version %.100q is not written as %s", s, v)
	}
	return v, err
}
