// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"path"
	"strings"

	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// maxModuleName bounds the name of a mapped file.
const maxModuleName = 64

// stack lists what the process has mapped as code. What it maps later is not there, and an address in it is not known.
func (p *program) stack() (*target.Stack, error) {
	maps, err := procfs.ParseMaps(p.in.Maps)
	if err != nil {
		return nil, err
	}
	id := p.identity
	s := &target.Stack{Modules: []target.Module{}}
	for _, m := range maps {
		own := m.Inode != 0 && m.Inode == id.Inode && (m.Device == id.Device || m.Path == id.Path)
		if !m.Executable || m.Path == "" || m.Start >= m.End || len(s.Modules) == target.MaxModules && !own {
			continue
		}
		module := target.Module{Name: moduleName(m.Path), Start: m.Start, End: m.End, Offset: m.Offset, Own: own}
		if len(s.Modules) == target.MaxModules {
			s.Modules[len(s.Modules)-1] = module
			continue
		}
		s.Modules = append(s.Modules, module)
	}
	return s, nil
}

// stackNote says how far the callers are known.
func (p *program) stackNote() string {
	if p.isGo {
		return "the callers are found by the frame pointers that the compiler of Go keeps; in C below Go they end with the first function that keeps none"
	}
	return "the callers are found by frame pointers, and shown as far as it is proved that each keeps one: a build with -fno-omit-frame-pointer does"
}

// moduleName is a file's name without its folders, which say much of whoever runs the machine.
func moduleName(file string) string {
	name := strings.ToValidUTF8(path.Base(strings.TrimSuffix(file, " (deleted)")), "_")
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '_'
		}
		return r
	}, name)
	return name[:min(len(name), maxModuleName)]
}
