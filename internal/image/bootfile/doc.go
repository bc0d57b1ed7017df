// Package bootfile finds what a VM boots from: the image and the kernel of the cache, or files that its user names by their
// paths; and it lays out files of the cache to be named so.
//
// Layer: image, below lifecycle. It may import image, api, errdefs, internal/sys.
package bootfile
