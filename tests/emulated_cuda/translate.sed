# Makes plain C++ of CUDA C++ (sed -E -f): what a macro of device.h cannot. Lines keep their numbers.

# Shared memory of a block: `T name[2][3];` becomes a reference to storage that device.h hands out.
s/^(\s*)__shared__ (alignas\([0-9]+\) )?(.+) (\w+)((\[[^]]*\])*);/\1auto\& \4 = ::emulated::shared<\3\5>([] {});/
# Memory whose size the launch decides.
s/^(\s*)extern __shared__ (__align__\([0-9]+\) )?(.+) (\w+)\[\];/\1static \3* const\& \4 = reinterpret_cast<\3* const\&>(::emulated::dynamic_shared);/
# A launch.
s/(\w+)<<<(.*)>>>\(/::emulated::configured(\1, name, \2)(/
# All devices that are emulated have tensor cores.
s/^#if defined\(__CUDA_ARCH__\) && __CUDA_ARCH__ >= 800$/#if 1/
# PTX.
/asm volatile\("st\.v4\.b32/{
  s/asm .*/*reinterpret_cast<uint4*>(data) = words;/
  n
  s/.*//
  n
  s/.*//
}
s/asm\("ex2\.approx.*"=f"\((\w+)\) : "f"\((\w+)\)\);/\1 = ::exp2f(\2);/
s/asm\(name .*"=f"\((\w+)\) : "f"\((\w+)\)\);/\1 = ::emulated::instruction(name, \2);/
