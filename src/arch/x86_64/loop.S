// The code that stopped tasks run. All of it is position independent and touches neither the stack nor any register that
// it does not get back from the slot, nor extended state but in the one entry whose purpose that is.
//
// struct BatchEntry: number 0, args 8..48, result 56, result_to 64, flags 72, size 80.
// struct SlotHead: registers 0 (user_regs_struct, 216 bytes), signal_mask 216, undo_table 224, heal_code 232,
//                  report_call 240, 248, 256, mask_is_own 264, compat_target 272.
#include <asm/unistd.h>

#define ENTRY_RESULT 56
#define ENTRY_RESULT_TO 64
#define ENTRY_FLAGS 72
#define ENTRY_SIZE 80
#define SLOT_UNDO 224
#define SLOT_HEAL 232
#define SLOT_REPORT 240

.macro load_call
	mov 8(%rbx), %rdi
	mov 16(%rbx), %rsi
	mov 24(%rbx), %rdx
	mov 32(%rbx), %r10
	mov 40(%rbx), %r8
	mov 48(%rbx), %r9
	syscall
.endm

.macro report
	mov SLOT_REPORT(%r12), %rdi
	mov SLOT_REPORT+8(%r12), %rsi
	mov SLOT_REPORT+16(%r12), %rdx
	mov $__NR_tgkill, %eax
	syscall
.endm

	.section .rodata
	.balign 16
	.globl stasis_batch_loop, stasis_batch_reported, stasis_batch_loop_end
// rbx: first entry, r12: slot. Both survive system calls.
stasis_batch_loop:
1:	mov (%rbx), %rax
	cmp $-1, %rax
	je 3f
	cmp $-2, %rax
	je 8f
	testb $4, ENTRY_FLAGS(%rbx) // kLoadFirst
	jz 11f
	mov 8(%rbx), %rdx
	mov (%rdx), %rdx
	mov %rdx, 8(%rbx)
11:	bt $32, %rax                // kCompatCall
	jc 10f
	load_call
9:	mov %rax, ENTRY_RESULT(%rbx)
	mov ENTRY_RESULT_TO(%rbx), %rdx
	mov %rax, (%rdx)
	testb $2, ENTRY_FLAGS(%rbx)
	jz 2f
	test %rax, %rax
	jz 6f
2:	testb $1, ENTRY_FLAGS(%rbx)
	jz 4f
	cmp $-4095, %rax
	jae 3f
4:	add $ENTRY_SIZE, %rbx
	jmp 1b
3:	report
stasis_batch_reported:
	// A controller stops the thread here and moves it elsewhere. Running on means that there is none.
	mov SLOT_UNDO(%r12), %rbx
5:	mov (%rbx), %rax
	cmp $-1, %rax
	je 7f
	load_call
	add $ENTRY_SIZE, %rbx
	jmp 5b
6:	// The forked copy of the task.
	xor %edi, %edi
	mov $__NR_exit_group, %eax
	syscall
7:	jmp *SLOT_HEAL(%r12)
8:	// kTouchExtendedState: a zeroed area in compact form, in which only the given components are marked.
	mov 8(%rbx), %rdi
	add $63, %rdi
	and $-64, %rdi
	mov 16(%rbx), %rax
	mov %rax, 512(%rdi)
	bts $63, %rax
	mov %rax, 520(%rdi)
	xor %edx, %edx
	xrstor64 (%rdi)
	xor %eax, %eax
	jmp 9b
10:	// The kernel takes the lower half of the number. Only r12 to r15 survive on all kernels.
	mov %rbx, %r13
	mov 16(%r13), %rcx
	mov 24(%r13), %rdx
	mov 32(%r13), %rsi
	mov 40(%r13), %rdi
	mov 48(%r13), %rbp
	mov 8(%r13), %rbx
	int $0x80
	mov %r13, %rbx
	jmp 9b
stasis_batch_loop_end:

	.balign 16
	.globl stasis_bootstrap_loop, stasis_bootstrap_reported, stasis_bootstrap_loop_end
// rbx: first call (56 bytes each: number, six arguments), r12: slot. Everything is read-only: the last result stays in
// r13.
stasis_bootstrap_loop:
1:	mov (%rbx), %rax
	cmp $-1, %rax
	je 3f
	load_call
	mov %rax, %r13
	add $56, %rbx
	cmp $-4095, %rax
	jb 1b
3:	report
stasis_bootstrap_reported:
	jmp *SLOT_HEAL(%r12)
stasis_bootstrap_loop_end:

// The headers of a static executable of one page.
.macro elf_header entry, size
	.byte 0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
	.short 2, 62                // ET_EXEC, EM_X86_64
	.long 1
	.quad 0x10000 + \entry
	.quad 64                    // the program header follows
	.quad 0
	.long 0
	.short 64, 56, 1, 64, 0, 0
	.long 1, 5                  // PT_LOAD, read and execute
	.quad 0, 0x10000, 0x10000
	.quad \size, \size
	.quad 0x1000
.endm

// A static executable of one page that does nothing: the body of a restored task before it gets its memory.
	.balign 64
	.globl stasis_stub, stasis_stub_end
stasis_stub:
	elf_header stub_entry-stasis_stub, stasis_stub_end-stasis_stub
stub_entry:
	pause
	jmp stub_entry
stasis_stub_end:

// The same for 32-bit code (the two instructions are). An executable that does not say that its stack is for data makes
// the kernel map everything executable.
	.balign 64
	.globl stasis_stub32, stasis_stub32_end
stasis_stub32:
	.byte 0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0
	.short 2, 3                 // ET_EXEC, EM_386
	.long 1
	.long 0x10000 + stub32_entry-stasis_stub32
	.long 52                    // the program headers follow
	.long 0
	.long 0
	.short 52, 32, 2, 40, 0, 0
	.long 1                     // PT_LOAD, read and execute
	.long 0, 0x10000, 0x10000
	.long stasis_stub32_end-stasis_stub32, stasis_stub32_end-stasis_stub32
	.long 5, 0x1000
	.long 0x6474e551            // PT_GNU_STACK, read and write
	.long 0, 0, 0, 0, 0
	.long 6, 16
stub32_entry:
	pause
	jmp stub32_entry
stasis_stub32_end:

// Likewise one that collects its children until there are none: the first process of a pid namespace.
	.balign 64
	.globl stasis_init, stasis_init_end
stasis_init:
	elf_header init_entry-stasis_init, stasis_init_end-stasis_init
init_entry:
	mov $-1, %rdi
	xor %esi, %esi
	mov $0x40000000, %edx       // __WALL
	xor %r10d, %r10d
	mov $__NR_wait4, %eax
	syscall
	cmp $-10, %rax              // ECHILD
	jne init_entry
	xor %edi, %edi
	mov $__NR_exit_group, %eax
	syscall
stasis_init_end:

	.section .note.GNU-stack, "", @progbits
