// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/arch/x86/x86asm"

	"github.com/keyhole-dev/keyhole/internal/probe"
	"github.com/keyhole-dev/keyhole/internal/procfs"
	"github.com/keyhole-dev/keyhole/internal/target"
)

// unseen says why not all returns of a function are at return instructions that are known.
type unseen struct{ error }

// ends adds the sites at which a function's calls end: its return instructions or, where these are not all, the kernel's return probe at
// its entry, if that harms nothing.
func (p *program) ends(t *target.Target, c *code, f *function, spec *probe.Spec) error {
	entry := t.Sites[0]
	sites, err := c.returnSites()
	if _, ok := errors.AsType[unseen](err); ok {
		if not := p.refuseReturnProbe(f); not != nil {
			return fmt.Errorf("%w; and the kernel's return probe is not for it: %w", err, not)
		}
		if spec.Stack {
			return fmt.Errorf("%w; and the kernel's return probe, which sees them, hides callers from --stack: leave out --stack", err)
		}
		entry.Where, entry.Return = "by the kernel's return probe", true
		t.Sites = append(t.Sites, entry)
		t.Returns = &target.Returns{By: target.ByThread, ByKernel: true}
		t.Notes = append(t.Notes, fmt.Sprintf("the kernel's return probe, which changes the return address on the stack, sees the returns of %s: %v", f.name, err))
		return nil
	}
	if err != nil {
		return err
	}
	for i := range sites {
		if sites[i].Address == entry.Address {
			return refused(f.name, errors.New("it does nothing but return: there is no time between its entry and its return"))
		}
		if err := p.place(&sites[i]); err != nil {
			return refused(f.name, err)
		}
	}
	t.Sites = append(t.Sites, sites...)
	t.Returns = &target.Returns{By: target.ByThread}
	return nil
}

// refuseReturnProbe says why the kernel's return probe could harm the process, beside what only the kernel and the process's status tell.
// The probe replaces the return address on the stack by one of the kernel's own. Who walks over it, as an exception does,
// finds nobody there, and the process ends; and whoever comes back to it on a stack that the kernel takes for abandoned is killed (handle_trampoline in
// kernel/events/uprobes.c). So nothing in the process may throw, and no thread may have two stacks: this is taken for proved only of C
// programs that know nothing of either, and of libraries of which it is known.
func (p *program) refuseReturnProbe(f *function) error {
	switch {
	case p.isGo:
		return errors.New("a Go program dies of it when one of its stacks moves")
	case p.identity.Arch != "amd64":
		return fmt.Errorf("on %s it is not known when it would harm", p.identity.Arch)
	case f.debug != nil && !p.debug.IsC(f.address):
		return errors.New("the function is not written in C, and an exception or a panic that passed it would end the process")
	case p.file.HasSection(".gcc_except_table"):
		return errors.New("the program handles exceptions, one of which would end it if it passed there")
	}
	for _, s := range p.symbols {
		if strings.HasPrefix(s.Name, "_Z") || strings.HasPrefix(s.Name, "_R") {
			return fmt.Errorf("a part of the program is written in C++ or Rust (%.64s), whose exceptions or panics would end the process", s.Name)
		}
		if why := dangerous(s.Name); why != "" {
			return fmt.Errorf("the program has a function %s: %s", s.Name, why)
		}
	}
	imports, err := p.file.Imports()
	if err != nil {
		return err
	}
	if len(imports) == 0 {
		return errors.New("the program is linked statically, or stripped of what says what it calls: whether it throws, or changes stacks, is not known")
	}
	for _, name := range imports {
		if why := dangerous(name); why != "" {
			return fmt.Errorf("the program calls %s: %s", name, why)
		}
	}
	if err := p.knowsLibraries(); err != nil {
		return err
	}
	return p.keepsStacks()
}

const (
	throws  = "what passes by its frames, as an exception does, would end the process"
	cancels = "it unwinds the stack of a thread, and would not find all of it"
	stacks  = "the kernel kills a thread that returns on one stack when it takes that for abandoned because of another"
	loads   = "what is loaded later may throw, or change stacks"
)

// dangerous says what a function of this name makes possible; empty: nothing.
func dangerous(name string) string {
	switch name {
	case "__cxa_throw", "__cxa_rethrow", "__gxx_personality_v0", "__gcc_personality_v0", "rust_eh_personality", "rust_begin_unwind",
		"objc_exception_throw", "__libunwind_Unwind_RaiseException":
		return throws
	case "pthread_cancel", "pthread_exit", "thrd_exit":
		return cancels
	case "sigaltstack", "sigstack", "makecontext", "swapcontext", "setcontext", "__splitstack_makecontext", "__morestack",
		"make_fcontext", "jump_fcontext", "ontop_fcontext", "coroutine_transfer":
		return stacks
	case "dlopen", "dlmopen":
		return loads
	}
	if strings.HasPrefix(name, "_Unwind_") {
		return throws
	}
	return ""
}

// plainLibraries neither throw, nor let anything pass, nor change stacks unless a program asks them to by a name that is dangerous; by their
// names up to ".so" or a version.
var plainLibraries = []string{
	"ld-linux-x86-64", "ld-musl-x86_64", "libc", "libc.musl-x86_64", "libm", "libmvec", "libpthread", "libdl", "librt", "libresolv", "libutil", "libanl", "libcrypt",
	"libnss_files", "libnss_dns", "libnss_compat", "libz", "libbz2", "liblz4", "liblzma", "libzstd", "libpcre", "libpcre2-8", "libcap", "libselinux", "libuuid", "libexpat",
}

// knowsLibraries says which code in the process is of nobody known.
func (p *program) knowsLibraries() error {
	maps, err := procfs.ParseMaps(p.in.Maps)
	if err != nil {
		return err
	}
	for _, m := range maps {
		if !m.Executable || m.Path == "[vdso]" || m.Path == "[vsyscall]" || m.Path == "[uprobes]" {
			continue
		}
		if m.Inode == 0 {
			return errors.New("the process has code that is in no file: whether that throws, or changes stacks, is not known")
		}
		if m.Inode == p.identity.Inode && (m.Device == p.identity.Device || m.Path == p.identity.Path) {
			continue
		}
		if !slices.Contains(plainLibraries, libraryName(m.Path)) {
			return fmt.Errorf("the process has loaded %.128s: whether that throws, or changes stacks, is not known", filepath.Base(m.Path))
		}
	}
	return nil
}

// libraryName is the file's name without its versions: "libc" of libc.so.6 as of libc-2.31.so.
func libraryName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".so")
	if i := strings.IndexByte(name, '-'); i > 0 && i+1 < len(name) && name[i+1] >= '0' && name[i+1] <= '9' {
		if stem := name[:i]; !slices.Contains(plainLibraries, name) {
			return stem
		}
	}
	return name
}

// keepsStacks looks for instructions that go on on another stack, as compilers write none: the stack pointer from memory that is not of the
// frame, or from a register that a caller may have passed it in.
func (p *program) keepsStacks() error {
	var found error
	err := p.file.EachCode(func(address uint64, text []byte) bool {
		for at := 0; at < len(text); {
			e, ok := encodeX86(text[at:])
			if !ok {
				at++
				continue
			}
			if i, ok := decodeX86(text[at:]); ok && changesStack(i) {
				found = fmt.Errorf("the instruction at %#x goes on on another stack: %s", address+uint64(at), stacks)
				return false
			}
			at += e.length
		}
		return true
	})
	return errors.Join(err, found)
}

func changesStack(i x86asm.Inst) bool {
	if i.Op == x86asm.XCHG {
		return i.Args[0] == x86asm.RSP || i.Args[1] == x86asm.RSP
	}
	if i.Args[0] != x86asm.RSP {
		return false
	}
	switch from := i.Args[1].(type) {
	case x86asm.Mem:
		// LEA of the frame pointer, or of r10 or r13 in a frame that was aligned anew, is how frames end.
		if i.Op == x86asm.LEA {
			return from.Base != x86asm.RSP && from.Base != x86asm.RBP && from.Base != x86asm.R10 && from.Base != x86asm.R13
		}
		return i.Op == x86asm.MOV && from.Base != x86asm.RBP && from.Base != x86asm.RSP
	case x86asm.Reg:
		// An array of variable length ends by a copy of the stack pointer, in a register that is kept across calls.
		return i.Op == x86asm.MOV && !slices.Contains([]x86asm.Reg{x86asm.RBP, x86asm.RBX, x86asm.R12, x86asm.R13, x86asm.R14, x86asm.R15}, from)
	}
	return i.Op == x86asm.POP
}
