/* Where the proxy begins, and what it cannot say in C++. */
	.text
	.globl	_start
_start:					/* the stack: argc, argv, environment, auxiliary vector */
	xorl	%ebp, %ebp
	movq	%rsp, %rdi
	andq	$-16, %rsp
	call	proxy_start
	ud2

	/* long guarded_call(const hobbes_call*, bool always): a system call that begins only while no signal has been caught that
	 * the program has not seen. A handler that interrupts between window_begin and window_end continues at not_begun. */
	.globl	guarded_call, window_begin, window_end, not_begun
guarded_call:
	pushq	%r12
	movq	%rdi, %r12
	movl	%esi, %r11d
	movq	8(%r12), %rax
	movl	%eax, %eax		/* without the flag above bit 31 */
	movq	16(%r12), %rdi
	movq	24(%r12), %rsi
	movq	32(%r12), %rdx
	movq	40(%r12), %r10
	movq	48(%r12), %r8
	movq	56(%r12), %r9
	testl	%r11d, %r11d
	jnz	1f
window_begin:
	movl	84(%r12), %ecx		/* caught */
	cmpl	88(%r12), %ecx		/* delivered */
	jne	not_begun
	syscall
window_end:
	popq	%r12
	ret
1:	syscall
	popq	%r12
	ret
not_begun:
	movq	$-513, %rax		/* HOBBES_CALL_NOT_BEGUN */
	popq	%r12
	ret

	/* long clone_thread(flags, stack, parent_tid, child_tid, slot): the child goes on in proxy_thread(slot). */
	.globl	clone_thread
clone_thread:
	movq	%r8, %r9
	movq	%rcx, %r10
	xorl	%r8d, %r8d
	movl	$56, %eax
	syscall
	testq	%rax, %rax
	jz	1f
	ret
1:	xorl	%ebp, %ebp
	movq	%r9, %rdi
	call	proxy_thread
	ud2

	/* run_on(stack, function, argument) */
	.globl	run_on
run_on:
	movq	%rdi, %rsp
	xorl	%ebp, %ebp
	movq	%rdx, %rdi
	call	*%rsi
	ud2

	.globl	restorer
restorer:
	movl	$15, %eax
	syscall
	ud2
	.section .note.GNU-stack, "", @progbits
