; run: insert-gates{kind=columns,exclude=named}
; expect: remark gate-skipped rows: left alone, it has not one row only
; expect: remark gate-skipped free: left alone, its weights are no constant
; expect: remark gate-skipped signed: left alone, no mask multiplies what it gives
; expect: remark gate-skipped named: left alone
; expect: no remark gate-done
; expect: ops gate == 0
planish-ir 1
graph @"main"(v0 "x": f32[2,4], v1 "z": f32[1,4], v2 "m": f32[4,4], v3 "s": f32[1,4]) {
  v4 = const f32[4,4] [-0.5, 0.2, -0.2, 0.5, 0.1, -0.3, 0.4, 0.0, -0.4, 0.3, -0.1, -0.5, 0.2, -0.2, 0.5, 0.1]
  v5 = matmul{trans_a=false, trans_b=false} v0, v4 : f32[2,4] @"rows"
  v6 = matmul{trans_a=false, trans_b=false} v1, v2 : f32[1,4] @"free"
  v7 = matmul{trans_a=false, trans_b=false} v1, v4 : f32[1,4] @"signed"
  v8 = binary{kind=mul} v7, v3 : f32[1,4]
  v9 = matmul{trans_a=false, trans_b=false} v1, v4 : f32[1,4] @"named"
  return v5 "a", v6 "b", v8 "c", v9 "d"
}
